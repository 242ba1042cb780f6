"""The schema at start: complete, applied once, equal to what the code expects."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import aggregator.subjects
import entitlements.credits.store
import entitlements.holds.tables
import entitlements.plans.payments.notes
import entitlements.plans.stores.tables
import entitlements.stores.features
import entitlements.stores.grants
import entitlements.stores.live
import entitlements.usage_records.stores.names
import entitlements.usage_records.stores.prices
import meterline.db.idempotency
import meterline.db.keys
import portal.store
from entitlements.plans.payments.notes import of_subscription
from entitlements.plans.payments.notice import Kind
from entitlements.plans.stores.tables import subscriptions
from meterline.db import migrations
from meterline.db.engine import Database
from meterline.db.tables import metadata
from tests.support.database import database_url
from tests.support.postgres import PostgresCluster

DOMAINS = (
    aggregator.subjects,
    entitlements.credits.store,
    entitlements.holds.tables,
    entitlements.plans.payments.notes,
    entitlements.plans.stores.tables,
    entitlements.stores.features,
    entitlements.stores.grants,
    entitlements.stores.live,
    entitlements.usage_records.stores.names,
    entitlements.usage_records.stores.prices,
    meterline.db.idempotency,
    meterline.db.keys,
    portal.store,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return database_url(tmp_path)
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.create_database(empty=True)


async def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    processes = [Database.open(empty_url) for _ in range(4)]
    applied = await asyncio.gather(*(one.migrate() for one in processes))
    assert [bool(versions) for versions in applied].count(True) == 1
    assert await processes[0].migrate() == []
    for one in processes:
        await one.close()


async def test_the_tables_are_what_the_code_expects(any_database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        def ours(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
            return kind != "table" or name in metadata.tables

        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": ours}
        )
        found = compare_metadata(context, metadata)
        # Indexes are a migration's business: the code does not name them.
        return [one for one in found if not str(one[0]).endswith("_index")]

    async with any_database.transaction() as conn:
        assert await conn.run_sync(differences) == []


async def test_a_failed_migration_leaves_the_schema_as_it_was(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    made: list[str] = []

    def create_table(self: Operations, name: str, *columns: Any, **options: Any) -> None:
        if made:
            raise RuntimeError("the disk is full")
        made.append(name)
        self.execute(f"CREATE TABLE {name} (x integer)")

    database = Database.open(empty_url)
    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", create_table)
        with pytest.raises(RuntimeError, match="disk is full"):
            await database.migrate()
    async with database.read() as conn:
        assert made
        assert await conn.run_sync(lambda sync: inspect(sync).get_table_names()) == []
    assert (await database.migrate())[0] == "0001"
    await database.close()


async def test_a_newer_schema_is_refused(any_database: Database) -> None:
    async with any_database.transaction() as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrations.SchemaTooNewError, match="newer Meterline"):
        await any_database.migrate()


def test_versions_are_numbered_without_a_gap() -> None:
    script = ScriptDirectory.from_config(migrations.configuration())
    found = [one.revision for one in script.walk_revisions()]
    assert found == [f"{number:04}" for number in range(len(found), 0, -1)]
    assert migrations.versions() == found[::-1]


async def test_what_was_known_of_subscriptions_becomes_notes(any_database: Database) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    rows = [
        ("sub_a", "active", "pro", None),
        ("sub_p", "past_due", "pro", 500),
        ("sub_e", "ended", None, None),
    ]
    async with any_database.transaction() as conn:
        await conn.execute(text("DROP TABLE stripe_notes"))
        await conn.execute(text("UPDATE alembic_version SET version_num = '0013'"))
        for name, state, plan, period in rows:
            await conn.execute(
                subscriptions.insert().values(
                    namespace="default", id=name, subject="ann", state=state, changed_at=at,
                    plan=plan, failed_period=period,
                )
            )  # fmt: skip
    assert "0014" in await any_database.migrate()
    async with any_database.read() as conn:
        found = {name: await of_subscription(conn, "default", name) for name, *_ in rows}
    assert [(one.kind, one.at, one.plan) for one in found["sub_a"]] == [(Kind.PAID, at, "pro")]
    kinds = {one.kind: one.begins for one in found["sub_p"]}
    assert kinds == {Kind.PAID: -1, Kind.FAILED: 500}
    assert [one.kind for one in found["sub_e"]] == [Kind.ENDED]
