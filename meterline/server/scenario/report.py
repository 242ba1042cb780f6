"""A report of scenarios for people: one page of HTML that needs nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from meterline.kernel.instants import format_instant
from meterline.server.scenario.cases import Step
from meterline.server.scenario.chart import colour_of, draw, moment, number
from meterline.server.scenario.stories import GrantNote, Story, Told

_FIGURES = (("balance", "left"), ("usage", "used in the period"), ("overage", "overage"))
_HIDDEN = {"op", "clock", "expect", "expectCurrentPeriod", "expectError"}


def report(told: Sequence[Told], title: str) -> str:
    """The page."""
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    failed = sum(not one.result["passed"] for one in told)
    count = "1 scenario" if len(told) == 1 else f"{len(told)} scenarios"
    verdict = f"{failed} not as expected" if failed else "all as expected"
    return page.substitute(
        title=escape(title),
        summary=f"{count}, {verdict}. Times are UTC. Point at a colour to see what it is.",
        articles="".join(_article(one) for one in told),
    )


def _article(one: Told) -> str:
    passed = one.result["passed"]
    badge = _badge("as expected" if passed else "not as expected", good=passed)
    name = escape(one.case.name)
    shown = "".join(_story(story) for story in one.stories)
    return (
        f"<article><header><h2>{name}</h2>{badge}</header>"
        f'<p class="soft">{escape(one.case.id)} · {one.case.aggregation.lower()}</p>'
        f"{shown}{_steps(one)}</article>"
    )


def _badge(text: str, *, good: bool) -> str:
    return f'<span class="badge {"good" if good else "bad"}">{text}</span>'


def _story(story: Story) -> str:
    access = bool(story.last["hasAccess"])
    figures = "".join(
        f"<div><b>{number(Decimal(story.last[name]))}</b> <span>{label}</span></div>"
        for name, label in _FIGURES
        if name in story.last
    )
    span = f"{moment(story.start)} to {moment(story.end)}"
    return (
        f"<h3>{escape(story.subject)} · {escape(story.feature)}</h3>"
        f'<p class="soft">{span}. At the end:</p>'
        f'<div class="figures">{figures}<div>'
        f"{_badge('access' if access else 'no access', good=access)}</div></div>"
        f"{draw(story)}<ul>{''.join(_legend(story))}</ul>"
    )


def _legend(story: Story) -> Iterator[str]:
    for index, grant in enumerate(story.grants):
        yield f'<li><i class="{colour_of(index)}"></i>{escape(_described(grant))}</li>'
    if any(point.overage for point in story.points):
        yield '<li><i class="overage"></i>overage: used beyond what was granted</li>'


def _described(grant: GrantNote) -> str:
    ends = f" until {moment(grant.ends_at)}" if grant.ends_at else ""
    name = "included" if grant.name == "issueAfterReset" else grant.name
    since = f"from {moment(grant.effective_at)}{ends}"
    return f"{name}: {number(grant.amount)} {since}, priority {grant.priority}"


def _steps(one: Told) -> str:
    if one.case.fault is not None:
        return f"<p>{escape(one.case.fault)}</p>"
    results = zip(one.case.steps, one.result["steps"], strict=True)
    rows = "".join(_row(step, result) for step, result in results)
    opened = "" if one.result["passed"] else " open"
    return (
        f"<details{opened}><summary>{len(one.case.steps)} steps</summary>"
        '<div class="scroll"><table><tr><th>clock</th><th>step</th><th>given</th><th>answer</th>'
        f"</tr>{rows}</table></div></details>"
    )


def _row(step: Step, result: Mapping[str, Any]) -> str:
    given = {name: value for name, value in step.given.items() if name not in _HIDDEN}
    answer = escape(_answer(result))
    for one in result["mismatches"]:
        difference = f"{one['what']} is {_plain(one['found'])}, not {_plain(one['expected'])}"
        answer += f"<br><b>{escape(difference)}</b>"
    kind = ' class="bad"' if result["mismatches"] else ""
    clock = format_instant(step.clock) if step.clock else ""
    return (
        f"<tr{kind}><td>{clock}</td><td>{step.op}</td><td>{escape(_plain(given))}</td>"
        f"<td>{answer}</td></tr>"
    )


def _answer(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return f"refused: {result['error']}"
    told = result["result"]
    if not isinstance(told, dict):
        return "done"
    if "windowedHistory" in told:
        windows, segments = len(told["windowedHistory"]), len(told["burndownHistory"])
        return f"{windows} windows, {segments} segments"
    names = ("hasAccess", "balance", "usage", "overage", "config", "accepted", "clock")
    shown = {name: told[name] for name in names if name in told}
    return _plain(shown) if shown else "done"


def _plain(value: Any) -> str:
    """JSON as people would say it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return number(Decimal(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return "nothing" if value is None else str(value)
