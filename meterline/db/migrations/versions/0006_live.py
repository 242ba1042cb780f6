"""Live entitlements: a row for each that the sink keeps up to date."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "live_entitlements",
        sa.Column("entitlement_id", sa.String(26), primary_key=True),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("feature_key", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("valid", sa.Boolean, nullable=False),
        sa.Column("series", sa.Integer),
        sa.Column("counts", sa.Boolean, nullable=False),
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("usage", sa.Text, nullable=False),
        sa.Column("due", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "ix_live_entitlements_feature",
        "live_entitlements",
        ["namespace", "subject", "feature_key"],
    )
    op.create_index("ix_live_entitlements_series", "live_entitlements", ["series", "subject"])
    op.create_index(
        "ix_live_entitlements_cold",
        "live_entitlements",
        ["entitlement_id"],
        sqlite_where=sa.text("valid = 0"),
        postgresql_where=sa.text("NOT valid"),
    )
