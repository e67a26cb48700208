"""The gateway's inbox (migrations: deploy/migrations/gateway)."""

import sqlalchemy as sa

metadata = sa.MetaData()

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
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
    sa.Index("deliveries_of_an_issue", "repository_id", "issue", "state", "sequence"),
    sa.Index("deliveries_by_state", "state", "sequence"),
)
"""``state``: pending, relayed (to ``run``), ignored or dead (``reason`` says why). Times are Unix seconds."""
