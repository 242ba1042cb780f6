"""Grants over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from entitlements.balance.exact import total
from tests.support.entitlements import Bench

GRANTS = "/subjects/alice/entitlements/tokens/grants"


async def test_a_grant_with_everything(bench: Bench) -> None:
    await bench.feature()
    entitlement = await bench.entitle()
    made = await bench.grant(
        100,
        priority=2,
        effectiveAt="2026-03-01T12:00:00Z",
        expiration={"duration": "MONTH", "count": 2},
        minRolloverAmount=10,
        maxRolloverAmount=50,
        recurrence={"interval": "WEEK", "anchor": "2026-03-04T00:00:00Z"},
        metadata={"invoice": "1"},
    )
    assert made == {
        "id": made["id"],
        "entitlementId": entitlement["id"],
        "amount": 100,
        "priority": 2,
        "effectiveAt": "2026-03-01T12:00:00Z",
        "expiration": {"duration": "MONTH", "count": 2},
        "expiresAt": "2026-05-01T12:00:00Z",
        "minRolloverAmount": 10,
        "maxRolloverAmount": 50,
        "recurrence": {
            "interval": "WEEK",
            "intervalISO": "P1W",
            "anchor": "2026-03-04T00:00:00Z",
        },
        "nextRecurrence": "2026-03-04T00:00:00Z",
        "metadata": {"invoice": "1"},
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
    }
    assert await bench.call("GET", GRANTS) == await bench.call("GET", "/grants") == [made]


async def test_a_plain_grant_starts_now_and_never_ends(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    made = await bench.grant(1)
    assert (made["effectiveAt"], made["priority"]) == ("2026-03-01T12:00:00Z", 1)
    assert not {"expiration", "expiresAt", "recurrence", "nextRecurrence", "annotations"} & {*made}


async def test_the_grant_issued_after_reset_is_listed(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(issueAfterReset=100, issueAfterResetPriority=6)
    (listed,) = await bench.call("GET", GRANTS)
    assert listed["annotations"] == {"issueAfterReset": True}
    assert (listed["amount"], listed["priority"]) == (100, 6)
    assert listed["minRolloverAmount"] == listed["maxRolloverAmount"] == 100


DIGITS = [
    "0.1",
    "12345678901234567890.123456789012345678",
    "9007199254740993",
    "99999999999999999999.999999999999999999",
    "0.000000000000000001",
    "1e19",
    "1.5E-3",
]


@pytest.mark.parametrize("digits", DIGITS)
async def test_every_digit_survives_both_ways(bench: Bench, digits: str) -> None:
    await bench.feature()
    await bench.entitle()
    body = f'{{"amount": {digits}, "minRolloverAmount": {digits}, "maxRolloverAmount": {digits}}}'
    made = await bench.call("POST", GRANTS, body, 201)
    for name in ("amount", "minRolloverAmount", "maxRolloverAmount"):
        assert made[name] == Decimal(digits)
    bench.clock.advance(1)
    bench.use("0.000000000000000001")
    value = await bench.value()
    assert value["usage"] == Decimal("0.000000000000000001")
    assert value["grantBalances"][made["id"]] == value["balance"]
    assert total([value["balance"], value["usage"]]) == Decimal(digits)
    assert value["totalAvailableGrantAmount"] == Decimal(digits)


async def test_sums_of_amounts_have_room(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    for _ in range(3):
        await bench.call("POST", GRANTS, f'{{"amount": {DIGITS[3]}}}', 201)
    assert (await bench.value())["balance"] == Decimal("299999999999999999999.999999999999999997")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{}", "amount"),
        ('{"amount": 0}', "must be positive"),
        ('{"amount": -1}', "must be positive"),
        ('{"amount": "5"}', "must be a number"),
        ('{"amount": true}', "must be a number"),
        ('{"amount": null}', "must be a number"),
        ('{"amount": NaN}', "JSON"),
        ('{"amount": Infinity}', "JSON"),
        ('{"amount": 100000000000000000000}', "20 digits"),
        ('{"amount": 0.0000000000000000001}', "18 after"),
        ('{"amount": 1e400}', "20 digits"),
        ('{"amount": 1e99999999999999999999}', "20 digits"),
        (f'{{"amount": {"9" * 5000}}}', "20 digits"),
        ('{"amount": 1, "maxRolloverAmount": -1}', "must not be negative"),
        ('{"amount": 1, "priority": 256}', "priority"),
        ('{"amount": 1, "priority": -1}', "priority"),
        ('{"amount": 1, "priority": 1.5}', "priority"),
        ('{"amount": 1, "priority": true}', "priority"),
        ('{"amount": 1, "effectiveAt": "2026-02-30T00:00:00Z"}', "calendar"),
        ('{"amount": 1, "effectiveAt": 5}', "RFC 3339"),
        ('{"amount": 1, "effectiveAt": "1066-01-01T00:00:00Z"}', "between 1900 and 2200"),
        ('{"amount": 1, "expiration": {"duration": "EON"}}', "expiration.duration: must be DAY"),
        ('{"amount": 1, "expiration": {"duration": "DAY", "count": 0}}', "count"),
        ('{"amount": 1, "expiration": {"duration": "YEAR", "count": 1000}}', "before 2200"),
        ('{"amount": 1, "expiration": {"duration": "P900Y", "count": 1000}}', "before 2200"),
        (
            '{"amount": 1, "expiration": {"duration": "DAY"}, "expiresAt": "2026-04-01T00:00:00Z"}',
            "not both",
        ),
        ('{"amount": 1, "expiresAt": "2026-03-01T12:00:00Z"}', "after effectiveAt"),
        ('{"amount": 1, "recurrence": {"interval": "PT30M"}}', "at least 3600 seconds"),
        ('{"amount": 1, "recurrence": {"interval": "DAY", "timeZone": "X"}}', "recurrence.timeZ"),
        ('{"amount": 1, "amounts": 2}', "amounts"),
        ('{"amount": 1', "JSON"),
        ('{"amount": 1, "metadata": {"a": "\\u0000"}}', "NUL"),
        ("[" * 100_000, "JSON"),
        ("1", "body"),
    ],
)
async def test_what_is_refused(bench: Bench, body: str, says: str) -> None:
    await bench.feature()
    await bench.entitle()
    problem = await bench.call("POST", GRANTS, body, 400)
    assert says in problem["detail"], problem["detail"]
    assert await bench.call("GET", GRANTS) == []


async def test_expiry_clamps_on_the_calendar_of_the_zone(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    made = await bench.grant(
        effectiveAt="2026-01-31T00:00:00Z", expiration={"duration": "MONTH", "count": 1}
    )
    assert made["expiresAt"] == "2026-02-28T00:00:00Z"
    hours = await bench.grant(
        effectiveAt="2026-01-31T00:00:00Z", expiration={"duration": "HOUR", "count": 12}
    )
    assert hours["expiresAt"] == "2026-01-31T12:00:00Z"
    period = {"interval": "MONTH", "timeZone": "Europe/Berlin"}
    await bench.entitle("bob", usagePeriod=period)
    local = await bench.grant(
        subject="bob",
        effectiveAt="2026-02-28T23:00:00Z",
        expiration={"duration": "MONTH"},
        recurrence={"interval": "DAY"},
    )
    assert local["expiresAt"] == "2026-03-31T22:00:00Z"
    assert local["recurrence"]["timeZone"] == "Europe/Berlin"


async def test_a_back_dated_grant_counts_from_its_start(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(
        usagePeriod={"interval": "MONTH", "anchor": "2026-01-01T00:00:00Z"},
        measureUsageFrom="2026-01-01T00:00:00Z",
        preserveOverageAtReset=True,
    )
    bench.use(30, "2026-01-10T00:00:00Z")
    assert (await bench.value())["overage"] == 30
    # It starts two periods ago: it pays what was owed since, and rolls over twice.
    await bench.grant(100, effectiveAt="2026-01-05T00:00:00Z", maxRolloverAmount=60)
    value = await bench.value()
    assert (value["overage"], value["balance"]) == (0, 60)
    assert (await bench.value(time="2026-01-20T00:00:00Z"))["balance"] == 70


async def test_grants_of_one_instant_burn_in_the_order_of_their_creation(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    made = [(await bench.grant(10))["id"] for _ in range(8)]
    bench.clock.advance(1)
    bench.use(35)
    balances = (await bench.value())["grantBalances"]
    assert [balances[grant] for grant in made] == [0, 0, 0, 5, 10, 10, 10, 10]
    assert [one["id"] for one in await bench.call("GET", GRANTS)] == made


async def test_voiding_ends_a_grant_and_keeps_what_it_paid(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    grant = await bench.grant(100)
    bench.at("2026-03-01T13:00:00Z")
    bench.use(40)
    await bench.call("DELETE", f"/grants/{grant['id']}", status=204)
    value = await bench.value()
    assert (value["balance"], value["usage"], value["overage"]) == (0, 40, 0)
    assert value["totalAvailableGrantAmount"] == 40
    (listed,) = await bench.call("GET", GRANTS)
    assert listed["voidedAt"] == "2026-03-01T13:00:00Z"
    problem = await bench.call("DELETE", f"/grants/{grant['id']}", status=400)
    assert "already voided" in problem["detail"]


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2026-03-01T13:00:00.001Z", "in the future"),
        ("2026-03-01T11:59:59.999Z", "before current usage period start"),
        ("noon", "RFC 3339"),
    ],
)
async def test_when_a_grant_cannot_be_voided(bench: Bench, at: str, says: str) -> None:
    await bench.feature()
    await bench.entitle()
    grant = await bench.grant()
    bench.at("2026-03-01T13:00:00Z")
    problem = await bench.call("DELETE", f"/grants/{grant['id']}", params={"at": at}, status=400)
    assert says in problem["detail"]
    params = {"at": "2026-03-01T12:30:00Z"}
    await bench.call("DELETE", f"/grants/{grant['id']}", params=params, status=204)
    assert (await bench.value(time="2026-03-01T12:29:59.999Z"))["balance"] == 100
    assert (await bench.value(time="2026-03-01T12:30:00Z"))["balance"] == 0


async def test_grants_are_for_metered_entitlements(bench: Bench) -> None:
    await bench.feature("sso", meterSlug=None)
    await bench.entitle(type="boolean", featureKey="sso")
    problem = await bench.grant(ref="sso", status=400)
    assert problem["detail"] == "a boolean entitlement has no grants, no usage and no resets"
    assert await bench.call("GET", "/subjects/alice/entitlements/sso/grants") == []


async def test_listing_all_of_them(bench: Bench) -> None:
    await bench.feature()
    made = []
    for subject in ("alice", "bob"):
        await bench.entitle(subject)
        made += [(await bench.grant(subject=subject))["id"] for _ in range(2)]
        bench.clock.advance(1)

    async def listed(**params: Any) -> list[str]:
        return [one["id"] for one in await bench.call("GET", "/grants", params=params)]

    assert await listed() == made
    assert await listed(subject="bob") == made[2:]
    assert await listed(feature="other") == []
    assert await listed(limit=1, offset=1) == made[1:2]
    page = await bench.call("GET", "/grants", params={"page": 2, "pageSize": 3, "order": "DESC"})
    assert [one["id"] for one in page["items"]] == made[:1]
    assert (page["totalCount"], page["page"], page["pageSize"]) == (4, 2, 3)
    await bench.call("DELETE", "/subjects/bob/entitlements/tokens", status=204)
    assert await listed() == made[:2]
    assert await listed(includeDeleted="true") == made
    problem = await bench.call("DELETE", f"/grants/{made[3]}", status=400)
    assert "was deleted" in problem["detail"]


async def test_namespaces_are_separate(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    made = await bench.grant()
    other = {"authorization": "other"}
    assert await bench.call("GET", "/grants", headers=other) == []
    await bench.call("GET", GRANTS, headers=other, status=404)
    await bench.call("POST", GRANTS, {"amount": 1}, 404, headers=other)
    await bench.call("DELETE", f"/grants/{made['id']}", headers=other, status=404)
