"""What agents' reports taught about token counts.

Revision: 0008
Follows: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table(
        "calibrations",
        *(sa.Column(name, sa.Text(), autoincrement=False, nullable=False) for name in ("team", "family")),
        _number("version"),
        _number("factor_permille"),
        sa.Column("samples", sa.Text(), server_default=sa.text("('')"), nullable=False),
        _number("updated_ms"),
        sa.PrimaryKeyConstraint("team", "family", name=op.f("pk_calibrations")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("calibrations")
