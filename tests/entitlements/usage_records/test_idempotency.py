"""Records behind the layer of `Idempotency-Key`, and what is forgotten with a subject."""

from pathlib import Path

import pytest
from sqlalchemy import select

from entitlements.usage_records.stores import names as store
from entitlements.usage_records.stores.names import record_names
from meterline.db.engine import Database
from meterline.db.idempotency import SqlRequestStore
from meterline.web.idempotency import Idempotency
from tests.entitlements.usage_records.build import Kit, running_kit
from tests.pricing.test_extract import CHAT
from tests.support.api import client_of
from tests.support.entitlements import OneNamespace

BODY = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}


@pytest.mark.parametrize(
    ("path", "body", "events"),
    [
        ("usage", BODY, 1),
        ("usage/batch", {"items": [BODY, BODY]}, 2),
        ("track", {"key": "k", "usage": {"prompt_tokens": 3}}, 1),
    ],
)
async def test_a_key_names_what_it_makes(
    any_database: Database, path: str, body: object, events: int
) -> None:
    async with running_kit(any_database) as kit:
        requests = SqlRequestStore(any_database)
        app = Idempotency(kit.app, requests, OneNamespace(), kit.clock)  # type: ignore[arg-type]
        async with client_of(app) as client:
            headers = {"idempotency-key": "k-1"}
            url = f"/api/v1/{path}"
            kit.store.broken = True
            away = await client.post(url, json=body, headers=headers)
            assert away.status_code == 503
            kit.store.broken = False
            kit.clock.advance(5)
            first = await client.post(url, json=body, headers=headers)
            assert first.status_code == 201, first.text
            kit.clock.advance(5)
            again = await client.post(url, json=body, headers=headers)
            assert again.content == first.content
            assert again.headers["idempotent-replayed"] == "true"
            assert len(kit.store.events) == events and kit.store.conflicts == []
            other = await client.post(url, json=BODY | {"inputTokens": 6}, headers=headers)
            assert other.status_code == 409


async def test_an_answer_counts_once_whatever_keys_it_is_sent_with(any_database: Database) -> None:
    body = {"key": "k", "response": CHAT}
    async with running_kit(any_database) as kit:
        requests = SqlRequestStore(any_database)
        app = Idempotency(kit.app, requests, OneNamespace(), kit.clock)  # type: ignore[arg-type]
        async with client_of(app) as client:
            answers = [
                await client.post("/api/v1/track", json=body, headers=headers)
                for headers in ({"idempotency-key": "ka"}, {"idempotency-key": "kb"}, {})
            ]
        assert [one.status_code for one in answers] == [201] * 3
        assert len({one.content for one in answers}) == len(kit.store.events) == 1


async def test_the_names_of_a_subject_are_forgotten_with_it(
    any_kit: Kit, any_database: Database, tmp_path: Path
) -> None:
    for who in ("alice", "bob"):
        await any_kit.record(id=f"of-{who}", accountId=who)
    async with any_database.transaction() as conn:
        await store.erase(conn, "default", "alice")
        await store.erase(conn, "other", "bob")
        left = (await conn.execute(select(record_names.c.record_id))).scalars().all()
    assert left == ["of-bob"]
