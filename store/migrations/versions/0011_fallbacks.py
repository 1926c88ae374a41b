"""Second moves: where an invocation stands on its fallback chain, and what brought it there.

Revision: 0011
Follows: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text("('')"), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False)


def upgrade() -> None:
    for column in (_number("step"), _text("home_agent"), _number("home_shard"), _text("fell_for")):
        op.add_column("invocations", column)
    op.create_table(
        "fallbacks",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        *(_number(name) for name in ("invocation_seq", "at_ms", "step")),
        *(_text(name) for name in ("kind", "agent")),
        *(_number(name) for name in ("attempts", "due_ms")),
        _text("reason"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_fallbacks")),
    )
    op.create_index("ix_fallbacks_invocation", "fallbacks", ["invocation_seq"])


def downgrade() -> None:
    op.drop_index("ix_fallbacks_invocation", "fallbacks")
    op.drop_table("fallbacks")
    for name in ("fell_for", "home_shard", "home_agent", "step"):
        op.drop_column("invocations", name)
