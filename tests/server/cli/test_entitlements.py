"""`meterline entitlements`: values and history for people."""

from decimal import Decimal

from meterline.server.cli.entitlements import chart_lines
from tests.support.server import MeterlineServer, run_cli


def window(day: int, usage: str, balance: str) -> dict[str, object]:
    period = {"from": f"2026-01-0{day}", "to": f"2026-01-0{day + 1}"}
    return {"period": period, "usage": Decimal(usage), "balanceAtStart": Decimal(balance)}


def test_a_chart_shows_what_is_left_and_what_was_used() -> None:
    windows = [window(1, "2.5", "10"), window(2, "9", "7.5"), window(3, "0", "0")]
    assert list(chart_lines(windows, width=8)) == [
        "2026-01-01  ██████░░  -2.5  7.5 left",
        "2026-01-02  ░░░░░░    -9    0 left",
        "2026-01-03            -0    0 left",
    ]


def test_a_chart_of_nothing() -> None:
    assert list(chart_lines([window(1, "0", "0")], width=2)) == ["2026-01-01      -0  0 left"]


def test_value_and_history_from_a_shell(server: MeterlineServer) -> None:
    with server.client() as client:
        meter = {"slug": "cli_ent", "aggregation": "COUNT", "eventType": "cli-ent"}
        feature = {"key": "cli_calls", "meterSlug": "cli_ent"}
        entitlement = {
            "type": "metered",
            "featureKey": "cli_calls",
            "issueAfterReset": 12345,
            "measureUsageFrom": "2026-01-01T00:00:00Z",
            "usagePeriod": {"interval": "MONTH", "anchor": "2026-01-01T00:00:00Z"},
        }
        for path, body in (
            ("meters", meter),
            ("features", feature),
            ("subjects/cli%2Fone/entitlements", entitlement),
        ):
            assert client.post(f"/api/v1/{path}", json=body).status_code == 201
    asked = ("cli/one", "cli_calls", "--url", server.url)
    value = run_cli("entitlements", "value", *asked, "--time", "2026-01-02T00:00:00Z")
    assert value.returncode == 0, value.stderr
    figures = dict(line.strip().split(maxsplit=1) for line in value.stdout.splitlines())
    assert (figures["hasAccess"], figures["balance"]) == ("yes", "12,345")
    span = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-03T00:00:00Z")
    table = run_cli("entitlements", "history", *asked, *span)
    assert table.stdout.splitlines()[1].split() == [
        "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "0", "12,345",
    ]  # fmt: skip
    chart = run_cli("entitlements", "history", *asked, *span, "--chart")
    assert len(chart.stdout.splitlines()) == 2
    missing = run_cli("entitlements", "value", "nobody", "cli_calls", "--url", server.url)
    assert missing.returncode == 1
    assert "no such entitlement" in missing.stderr
