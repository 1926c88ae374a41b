"""Flow control: what it knows of an invocation, and how new the events are that a key has seen.

Revision: 0007
Follows: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text("('')"), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "flows",
        sa.Column("invocation_id", sa.Text(), nullable=False),
        *(_text(name) for name in ("limit_key", "stale", "digest_id")),
        sa.PrimaryKeyConstraint("invocation_id", name=op.f("pk_flows")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_flows_digest",
        "flows",
        ["digest_id"],
        postgresql_where=sa.text("digest_id <> ''"),
        sqlite_where=sa.text("digest_id <> ''"),
    )
    op.create_table(
        "marks",
        sa.Column("key_digest", sa.Text(), nullable=False),
        _text("version"),
        _number("time_ms"),
        _text("event_id"),
        _number("at_ms"),
        sa.PrimaryKeyConstraint("key_digest", name=op.f("pk_marks")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_marks_at", "marks", ["at_ms"])
    op.add_column("folds", _text("stale"))


def downgrade() -> None:
    op.drop_column("folds", "stale")
    op.drop_table("marks")
    op.drop_table("flows")
