"""Quotas of teams.

Revision: 0010
Follows: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("team", sa.Text(), nullable=False),
        *(_number(name) for name in ("attempts", "per_ms", "span_ms", "taken")),
        sa.PrimaryKeyConstraint("team", name=op.f("pk_quotas")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("quotas")
