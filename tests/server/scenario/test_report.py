"""`meterline scenario plot`: a page for people, which needs nothing else."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from meterline.kernel.windows import WindowSize
from meterline.server.scenario.cases import read_cases
from meterline.server.scenario.chart import draw, number
from meterline.server.scenario.stories import GrantNote, Point, Story, Usage
from tests.support.server import run_cli

_PLANS = Path(__file__).with_name("plans.json")
_DOCS = Path(__file__).parents[3] / "docs" / "scenarios.md"
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_of_our_own_cases(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    done = run_cli("scenario", "plot", _PLANS, "-o", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = output.read_text()
    elements = Elements(page).found
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in elements}
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", page)
    metered = 8
    assert sum(tag == "svg" for tag, _ in elements) == metered
    for svg in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(svg)
    for case in read_cases(_PLANS):
        assert case.name in page
    assert "top-up: 500 from 11 Jan 2026 12:00 until 12 Feb 2026, priority 5" in page
    assert page.count(">as expected<") == len(read_cases(_PLANS))


def test_a_mismatch_is_shown_and_ends_with_1_and_text_is_only_text(tmp_path: Path) -> None:
    steps = [
        {
            "op": "entitlement",
            "clock": "2026-01-01T00:00:00Z",
            "usagePeriod": {"interval": "MONTH"},
            "subject": "<script>alert(1)</script>",
        },
        {"op": "value", "subject": "<script>alert(1)</script>", "expect": {"balance": 6}},
    ]
    path, output = tmp_path / "bad.json", tmp_path / "bad.html"
    path.write_text(json.dumps({"id": "<b>", "name": "A & B", "steps": steps}))
    done = run_cli("scenario", "plot", path, "-o", output)
    assert done.returncode == 1
    assert "1 played, 1 not as expected" in done.stdout
    page = output.read_text()
    assert "balance is 0, not 6" in page
    assert "<script" not in page and "A &amp; B" in page


def test_the_documented_plan(tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", _DOCS.read_text(), re.DOTALL)
    path = tmp_path / "plan.json"
    path.write_text(next(block for block in blocks if '"steps": [' in block and "clock" in block))
    done = run_cli("scenario", "run", path)
    assert done.returncode == 0, done.stdout + done.stderr


def story(span: timedelta, *points: Point, **changes: Any) -> Story:
    given: dict[str, Any] = {
        "subject": "s",
        "feature": "f",
        "start": _START,
        "end": _START + span,
        "window": WindowSize.DAY,
        "grants": [GrantNote("g", Decimal(10), 1, _START, None)],
        "points": points,
        "usage": [],
        "resets": [],
        "last": {},
    }
    return Story(**(given | changes))


@pytest.mark.parametrize(
    "span", [timedelta(**{unit: n}) for unit in ("minutes", "hours", "days") for n in (1, 9, 700)]
)
@pytest.mark.parametrize("amount", ["0", "0.0000001", "10", "98765432109876543210.5"])
def test_a_drawing_of_any_size(span: timedelta, amount: str) -> None:
    balance = Decimal(amount)
    points = [
        Point(_START, {"g": balance}, Decimal(0)),
        Point(_START + span, {"g": Decimal(0)}, balance),
    ]
    usage = [Usage(_START, _START + span, balance)]
    svg = ElementTree.fromstring(draw(story(span, *points, usage=usage, resets=[_START + span])))
    numbers = [
        float(text)
        for element in svg.iter()
        for name in ("x", "y", "x1", "x2", "y1", "y2")
        if (text := element.get(name))
    ]
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    assert all(0 <= one <= max(width, height) for one in numbers)
    ticks = [one for one in svg.iter() if one.get("class") == "label middle"]
    assert len(ticks) <= 14


def test_numbers_for_people() -> None:
    shown = [number(Decimal(text)) for text in ("1E+3", "1234567.50", "0.10", "0", "100")]
    assert shown == ["1,000", "1,234,567.5", "0.1", "0", "100"]
