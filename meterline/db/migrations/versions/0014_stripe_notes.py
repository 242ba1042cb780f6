"""What Stripe told of each subscription, event by event."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "stripe_notes",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("subscription", sa.String(255), primary_key=True),
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan", sa.String(128)),
        sa.Column("fallback", sa.String(128)),
        sa.Column("invoice", sa.String(255)),
        sa.Column("begins", sa.BigInteger),
        sa.Column("ends", sa.BigInteger),
    )
    op.create_index("ix_stripe_notes_subject", "stripe_notes", ["namespace", "subject"])
    # What was known of subscriptions until now. Their payments are of a time before all periods, so
    # that they make no failure good.
    for kind, begins, state in (
        ("paid", "-1", "plan IS NOT NULL"),
        ("failed", "failed_period", "state = 'past_due'"),
        ("ended", "NULL", "state = 'ended'"),
    ):
        op.execute(
            "INSERT INTO stripe_notes"
            " (namespace, subscription, id, subject, kind, at, plan, fallback, begins)"
            f" SELECT namespace, id, 'before:{kind}', subject, '{kind}', changed_at,"
            f" {'plan' if kind == 'paid' else 'NULL'}, fallback, {begins}"
            f" FROM stripe_subscriptions WHERE {state}"
        )
