"""How agents stand outlives the process that found it out.

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NAMES = ("hold_pauses", "hold_since_ms", "hold_at_ms")


def upgrade() -> None:
    for name in _NAMES:
        op.add_column(
            "agents", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)
        )


def downgrade() -> None:
    for name in reversed(_NAMES):
        op.drop_column("agents", name)
