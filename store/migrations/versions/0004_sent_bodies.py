"""What each attempt sent.

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("sent_body", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "sent_body")
