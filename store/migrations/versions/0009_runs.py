"""Runs under supervision, what happened in them, and who waits for work.

Revision: 0009
Follows: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text("('')"), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)


def _key(name: str, kind: sa.types.TypeEngine[object]) -> sa.Column[object]:
    return sa.Column(name, kind, autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "runs",
        _key("invocation_seq", sa.BigInteger()),
        _number("number"),
        *(_text(name) for name in ("team", "agent")),
        *(_number(name) for name in ("begun_ms", "waiting", "lease_ms", "span_ms", "ends_ms", "beats", "beat_ms")),
        *(_text(name) for name in ("signal", "worker", "checkpoint")),
        _number("checkpoint_ms"),
        *(_text(name) for name in ("tried", "blocked", "next")),
        *(_number(name) for name in ("status_ms", "notes", "ended_ms")),
        *(_text(name) for name in ("verdict", "note", "report")),
        sa.Column("offer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("invocation_seq", name=op.f("pk_runs")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_runs_open",
        "runs",
        ["team", "agent", "invocation_seq"],
        postgresql_where=sa.text("ended_ms = 0"),
        sqlite_where=sa.text("ended_ms = 0"),
    )
    op.create_table(
        "run_notes",
        _key("invocation_seq", sa.BigInteger()),
        _key("place", sa.BigInteger()),
        *(_number(name) for name in ("number", "at_ms")),
        *(_text(name) for name in ("kind", "detail")),
        sa.PrimaryKeyConstraint("invocation_seq", "place", name=op.f("pk_run_notes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pollers",
        *(_key(name, sa.Text()) for name in ("team", "agent", "id")),
        *(_number(name) for name in ("want", "until_ms")),
        sa.PrimaryKeyConstraint("team", "agent", "id", name=op.f("pk_pollers")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("pollers")
    op.drop_table("run_notes")
    op.drop_index("ix_runs_open", "runs")
    op.drop_table("runs")
