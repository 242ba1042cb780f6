"""Subjects: upserts that keep what they do not name, hostile keys, purging."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.subjects import SubjectChange, SubjectLimits, SubjectService
from meterline.db.engine import Database
from meterline.kernel.errors import NotFoundError, UnavailableError, ValidationError
from meterline.kernel.text import is_text
from tests.support.clock import FixedClock


class Purges:
    """Stands for the erasure of usage."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.fails = False

    async def __call__(self, namespace: str, subject: str) -> None:
        if self.fails:
            raise UnavailableError("later")
        self.done.append((namespace, subject))


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


@pytest.fixture
def purges() -> Purges:
    return Purges()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def service(database: Database, clock: FixedClock, purges: Purges) -> SubjectService:
    return SubjectService(database, clock, purges)


def change(key: str, **fields: Any) -> SubjectChange:
    return SubjectChange(key, fields)


async def test_present_fields_change_and_absent_ones_stay(
    service: SubjectService, clock: FixedClock
) -> None:
    [made] = await service.upsert("n", [change("a", display_name="A", metadata={"plan": "pro"})])
    clock.advance(5)
    [renamed] = await service.upsert("n", [change("a", display_name="B")])
    assert (renamed.id, renamed.created_at) == (made.id, made.created_at)
    assert renamed.updated_at == clock.now
    assert (renamed.display_name, renamed.metadata) == ("B", {"plan": "pro"})
    [other] = await service.upsert("n", [change("a", metadata={"x": 1})])
    assert (other.display_name, other.metadata) == ("B", {"x": 1})
    [same] = await service.upsert("n", [change("a")])
    assert (same.display_name, same.metadata) == ("B", {"x": 1})
    [cleared] = await service.upsert("n", [change("a", display_name=None, metadata=None)])
    assert (cleared.display_name, cleared.metadata) == (None, {})


async def test_many_at_once_in_their_order(service: SubjectService) -> None:
    keys = [f"k{number}" for number in range(1_000)]
    made = await service.upsert("n", [change(key) for key in reversed(keys)])
    assert [one.key for one in made] == keys[::-1]
    mixed = await service.upsert(
        "n",
        [
            change("k1", display_name="one"),
            change("k2", metadata={"a": 1}),
            change("k1", metadata={"b": 2}),
            change("k1", display_name="uno"),
        ],
    )
    assert [(one.key, one.display_name, one.metadata) for one in mixed] == [
        ("k1", "uno", {"b": 2}),
        ("k2", None, {"a": 1}),
        ("k1", "uno", {"b": 2}),
        ("k1", "uno", {"b": 2}),
    ]
    assert await service.upsert("n", []) == []


async def test_parallel_upserts_make_one_subject(service: SubjectService) -> None:
    results = await asyncio.gather(
        *(service.upsert("n", [change("a", display_name=str(n))]) for n in range(20))
    )
    assert len({one.id for [one] in results}) == 1
    assert len(await service.list("n", None, 10)) == 1


async def test_one_bad_subject_refuses_all(service: SubjectService) -> None:
    with pytest.raises(ValidationError) as caught:
        await service.upsert("n", [change("good"), change("bad\n"), change("", display_name="\0")])
    assert [fault.where for fault in caught.value.errors] == [
        "[1].key",
        "[2].key",
        "[2].displayName",
    ]
    assert await service.list("n", None, 10) == []


@pytest.mark.parametrize(
    ("subject", "good"),
    [
        (change("k" * 2_048), True),
        (change("k" * 2_049), False),
        (change("k", display_name="d" * 256), True),
        (change("k", display_name="d" * 257), False),
        (change("k", metadata={f"m{n}": "" for n in range(64)}), True),
        (change("k", metadata={f"m{n}": "" for n in range(65)}), False),
        (change("k", metadata={"m": ["x"] * 64}), False),
        (change("k", metadata={"m": "x" * 8_191}), True),
        (change("k", metadata={"m": "x" * 8_192}), False),
        (change("k", metadata={"m": [[[[[[[]]]]]]]}), True),
        (change("k", metadata={"m": [[[[[[[[]]]]]]]]}), False),
        (change("k", metadata={"m": 2**63 - 1}), True),
        (change("k", metadata={"m": 2**63}), False),
        (change("k", metadata={"m": [0.5, True, None]}), True),
        (change("k", metadata={"m": float("nan")}), False),
        (change("k", metadata={"m": [float("inf")]}), False),
        (change("k", metadata={"m": "\0"}), False),
        (change("k", metadata={"\0": "m"}), False),
        (change("k", metadata={"m": "\ud800"}), False),
    ],
)
async def test_limits_at_their_edges(
    service: SubjectService, subject: SubjectChange, good: bool
) -> None:
    if good:
        [kept] = await service.upsert("n", [subject])
        assert kept == await service.get("n", "k" * len(subject.key))
        assert kept.metadata == (subject.fields.get("metadata") or {})
    else:
        with pytest.raises(ValidationError):
            await service.upsert("n", [subject])


async def test_an_upsert_has_a_limit(database: Database, purges: Purges) -> None:
    service = SubjectService(database, FixedClock(), purges, SubjectLimits(max_upsert=2))
    await service.upsert("n", [change("a"), change("b")])
    with pytest.raises(ValidationError, match="more than 2"):
        await service.upsert("n", [change("a"), change("b"), change("c")])


HOSTILE = [
    "a/b/c",
    "/",
    "..",
    "../../etc/passwd",
    "%2F",
    "'; DROP TABLE subjects; --",
    '"',
    "a b",
    " ",
    "ünïcödé",
    "e\u0301",
    "\u00e9",
    "日本語",
    "🦊",
    "\u202eabc",
    "%",
    "_",
    "NULL",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "=1+1",
    "*",
    "\\",
]


async def test_strange_keys_are_just_keys(service: SubjectService) -> None:
    await service.upsert("n", [change(key, display_name=key) for key in HOSTILE])
    for key in HOSTILE:
        assert (await service.get("n", key)).display_name == key
    assert len(await service.list("n", None, 100)) == len(HOSTILE)
    await service.delete("n", "%", purge_usage=False)
    assert len(await service.list("n", None, 100)) == len(HOSTILE) - 1


@given(st.text(max_size=5) | st.characters(categories=["Cc", "Cs", "Cn"]))
def test_texts_are_what_cloudevents_calls_a_string(text: str) -> None:
    def bad(char: str) -> bool:
        code = ord(char)
        return (
            code < 32
            or 127 <= code < 160
            or 0xD800 <= code < 0xE000
            or 0xFDD0 <= code <= 0xFDEF
            or code & 0xFFFE == 0xFFFE
        )

    assert is_text(text) == (not any(map(bad, text)))


async def test_a_key_goes_before_an_id(service: SubjectService) -> None:
    [one] = await service.upsert("n", [change("one")])
    assert (await service.get("n", one.id)).key == "one"
    assert (await service.get("n", one.id.lower())).key == "one"
    await service.upsert("n", [change(one.id)])
    assert (await service.get("n", one.id)).key == one.id


async def test_listing_goes_by_key_in_pages(service: SubjectService) -> None:
    await service.upsert("n", [change(key) for key in ("c", "a", "b", "ü", "Z")])
    assert [one.key for one in await service.list("n", None, 10)] == ["Z", "a", "b", "c", "ü"]
    assert [one.key for one in await service.list("n", "a", 2)] == ["b", "c"]


async def test_namespaces_see_nothing_of_each_other(
    service: SubjectService, purges: Purges
) -> None:
    [mine] = await service.upsert("mine", [change("a", display_name="mine")])
    await service.upsert("theirs", [change("a", display_name="theirs")])
    for name in ("a", mine.id):
        with pytest.raises(NotFoundError):
            await service.get("other", name)
    with pytest.raises(NotFoundError):
        await service.get("theirs", mine.id)
    await service.delete("theirs", "a", purge_usage=True)
    assert purges.done == [("theirs", "a")]
    assert (await service.get("mine", "a")).display_name == "mine"


async def test_deleting_keeps_usage_unless_told(service: SubjectService, purges: Purges) -> None:
    [one] = await service.upsert("n", [change("a")])
    await service.delete("n", "a", purge_usage=False)
    assert purges.done == []
    with pytest.raises(NotFoundError):
        await service.delete("n", "a", purge_usage=False)
    # Usage needs no record, so neither does purging it.
    await service.delete("n", "a", purge_usage=True)
    assert purges.done == [("n", "a")]
    [two] = await service.upsert("n", [change("b")])
    assert two.id != one.id
    await service.delete("n", two.id, purge_usage=True)
    assert purges.done == [("n", "a"), ("n", "b")]
    with pytest.raises(NotFoundError):
        await service.delete("n", "x\n", purge_usage=True)


async def test_a_failed_purge_keeps_the_record(service: SubjectService, purges: Purges) -> None:
    await service.upsert("n", [change("a")])
    purges.fails = True
    with pytest.raises(UnavailableError):
        await service.delete("n", "a", purge_usage=True)
    assert (await service.get("n", "a")).key == "a"
