"""Live rows that are being built, and when the answer of each ends; larger counts."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("live_entitlements", sa.Column("building_since", sa.BigInteger))
    op.add_column("live_entitlements", sa.Column("until", sa.BigInteger))
    op.create_index(
        "ix_live_entitlements_until",
        "live_entitlements",
        ["until"],
        sqlite_where=sa.text("valid = 1"),
        postgresql_where=sa.text("valid"),
    )
    on_postgresql = op.get_context().dialect.name == "postgresql"
    # Rows are a cache: each is built anew when it is asked for, or by the warmer.
    op.execute(
        "UPDATE live_entitlements SET series = NULL, version = version + 1, valid = "
        + ("FALSE" if on_postgresql else "0")
    )
    with op.batch_alter_table("notification_rejected") as batch:
        batch.alter_column("number", type_=sa.BigInteger)
