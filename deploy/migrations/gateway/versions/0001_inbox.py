"""The inbox: every delivery that was ever accepted, by its id."""

import sqlalchemy as sa
from alembic import op

revision = "gateway_0001"
down_revision = None


def upgrade() -> None:
    """Create the table as the first release has it."""
    op.create_table(
        "deliveries",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("delivery", sa.Text, nullable=False, unique=True),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("repository_id", sa.BigInteger, nullable=True),
        sa.Column("issue", sa.BigInteger, nullable=True),
        sa.Column("message", sa.LargeBinary, nullable=True),
        sa.Column("run", sa.Text, nullable=False, server_default=""),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.Float, nullable=False, server_default="0"),
        sa.Column("claimed_by", sa.Text, nullable=False, server_default=""),
        sa.Column("claimed_until", sa.Float, nullable=False, server_default="0"),
    )
    op.create_index("deliveries_of_an_issue", "deliveries", ["repository_id", "issue", "state", "sequence"])
    op.create_index("deliveries_by_state", "deliveries", ["state", "sequence"])


def downgrade() -> None:
    """Forget every delivery: GitHub can be asked to send them again."""
    op.drop_table("deliveries")
