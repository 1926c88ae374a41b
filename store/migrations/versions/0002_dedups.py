"""What subscriptions' dedup holds, and what it folded.

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dedups",
        sa.Column("key_digest", sa.Text(), nullable=False),
        sa.Column("subscription_uid", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False),
        sa.Column("invocation_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.PrimaryKeyConstraint("key_digest", name=op.f("pk_dedups")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("dedups", schema=None) as batch_op:
        batch_op.create_index("ix_dedups_expires", ["expires_ms"], unique=False)

    op.create_table(
        "folds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("subscription_uid", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("invocation_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("replay_id", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), server_default=sa.text("0"), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_folds")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("folds", schema=None) as batch_op:
        batch_op.create_index("ix_folds_event", ["event_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("folds", schema=None) as batch_op:
        batch_op.drop_index("ix_folds_event")

    op.drop_table("folds")
    with op.batch_alter_table("dedups", schema=None) as batch_op:
        batch_op.drop_index("ix_dedups_expires")

    op.drop_table("dedups")
