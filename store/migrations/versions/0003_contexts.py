"""What contexts draw on: facts, secrets of lookups, what was fetched by reference; the last events of a thing.

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
        "credentials",
        _key("team", sa.Text()),
        _key("name", sa.Text()),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        _number("updated_ms"),
        sa.PrimaryKeyConstraint("team", "name", name=op.f("pk_credentials")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "facts",
        *(_key(name, sa.Text()) for name in ("team", "thing", "name")),
        _key("version", sa.BigInteger()),
        *(_text(name) for name in ("value", "actor", "invocation_id")),
        *(_number(name) for name in ("at_ms", "expires_ms", "pinned")),
        sa.PrimaryKeyConstraint("team", "thing", "name", "version", name=op.f("pk_facts")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_facts_expiring",
        "facts",
        ["expires_ms"],
        postgresql_where=sa.text("expires_ms > 0"),
        sqlite_where=sa.text("expires_ms > 0"),
    )
    op.create_table(
        "fetches",
        _key("subscription_uid", sa.Text()),
        _key("pointer", sa.Text()),
        *(_number(name) for name in ("count", "last_ms")),
        sa.PrimaryKeyConstraint("subscription_uid", "pointer", name=op.f("pk_fetches")),
        sqlite_with_rowid=False,
    )
    for name in ("raw_tokens", "missing", "cut"):
        op.add_column("attempts", _number(name))
    op.create_index("ix_events_thing", "events", ["partitionkey", "seq"])


def downgrade() -> None:
    op.drop_index("ix_events_thing", "events")
    for name in ("cut", "missing", "raw_tokens"):
        op.drop_column("attempts", name)
    op.drop_table("fetches")
    op.drop_table("facts")
    op.drop_table("credentials")
