"""Of failed calls: their address and headers, and those of the answer, without secrets.

Revision: 0012
Follows: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchanges",
        sa.Column("invocation_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("exchange", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("invocation_seq", "number", name=op.f("pk_exchanges")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("exchanges")
