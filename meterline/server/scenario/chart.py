"""The burn-down of an entitlement as a drawing: SVG text, made of nothing but numbers."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from math import ceil, floor, log10

from meterline.server.scenario.stories import Story

COLOURS = 8
"""How many colours the page has for grants; then they repeat."""
_WIDTH, _LEFT, _RIGHT = 960, 76, 30
_TOP, _BALANCES, _GAP, _USAGE, _BOTTOM = 22, 230, 20, 64, 26
_HEIGHT = _TOP + _BALANCES + _GAP + _USAGE + _BOTTOM
_LABELS = 7


def number(amount: Decimal) -> str:
    """An amount for people."""
    text = f"{amount:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment(at: datetime) -> str:
    """An instant for people."""
    text = f"{at.astimezone(UTC):%-d %b %Y}"
    return text if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{text} {at:%H:%M}"


def colour_of(index: int) -> str:
    """The class of a grant's colour."""
    return f"g{index % COLOURS}"


def draw(story: Story) -> str:
    """Balances of the grants on top of one another, overage below zero, usage as bars."""
    return Drawing(story).svg()


class Drawing:
    """One chart: a scale of time and one of amounts, and what is drawn on them."""

    def __init__(self, story: Story) -> None:
        self._story = story
        totals = [float(sum(point.balances.values())) for point in story.points]
        overages = [float(point.overage) for point in story.points]
        self._step = _nice(max([*totals, *overages, 1.0]) / 4)
        self._most = max(ceil(max([*totals, 0.0]) / self._step), 1) * self._step
        self._least = -ceil(max([*overages, 0.0]) / self._step) * self._step
        self._seconds = (story.end - story.start).total_seconds()

    def svg(self) -> str:
        """The whole drawing."""
        title = f"Balance of {self._story.feature} of {self._story.subject} over time"
        parts = [
            *self._amounts(),
            *self._times(),
            *self._areas(),
            *self._overage(),
            *self._resets(),
            *self._bars(),
        ]
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
            f"{''.join(parts)}</svg>"
        )

    def _x(self, at: datetime) -> float:
        # A history is told in whole windows, the first of which may begin before.
        share = (max(at, self._story.start) - self._story.start).total_seconds() / self._seconds
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, amount: float) -> float:
        share = (amount - self._least) / (self._most - self._least)
        return _TOP + (1 - share) * _BALANCES

    def _amounts(self) -> Iterator[str]:
        count = round((self._most - self._least) / self._step)
        for i in range(count + 1):
            amount = self._least + i * self._step
            y = self._y(amount)
            kind = "zero" if abs(amount) < self._step / 2 else "grid"
            yield _line(_LEFT, y, _WIDTH - _RIGHT, y, kind)
            shown = number(Decimal(repr(round(abs(amount), 10))))
            below = amount < -self._step / 2
            text = f"−{shown}" if below else shown
            yield _text(_LEFT - 8, y + 4, text, "label end over" if below else "label end")
        yield _text(_LEFT, 12, "left of each grant", "label caption")

    def _times(self) -> Iterator[str]:
        story, bottom = self._story, _TOP + _BALANCES + _GAP + _USAGE
        previous = ""
        for at in _ticks(story.start, story.end):
            x = self._x(at)
            yield _line(x, bottom, x, bottom + 4, "zero")
            text = _tick_text(at, story.end - story.start)
            if text != previous:
                yield _text(x, bottom + 18, text, "label middle")
            previous = text

    def _areas(self) -> Iterator[str]:
        """The grant that burns first lies on top, so that it is seen to go first."""
        names = [grant.name for grant in self._story.grants]
        below = [0.0] * len(self._story.points)
        for index in reversed(range(len(names))):
            amounts = [float(point.balances.get(names[index], 0)) for point in self._story.points]
            above = [low + amount for low, amount in zip(below, amounts, strict=True)]
            if any(amounts):
                note = f"{names[index]}: {number(self._story.grants[index].amount)} granted"
                yield self._area(above, below, colour_of(index), note)
            below = above

    def _overage(self) -> Iterator[str]:
        overages = [-float(point.overage) for point in self._story.points]
        if any(overages):
            yield self._area([0.0] * len(overages), overages, "overage", "overage")

    def _area(self, above: Sequence[float], below: Sequence[float], kind: str, note: str) -> str:
        xs = [self._x(point.at) for point in self._story.points]
        there = [f"{x:.1f},{self._y(y):.1f}" for x, y in zip(xs, above, strict=True)]
        back = [f"{x:.1f},{self._y(y):.1f}" for x, y in zip(xs, below, strict=True)]
        path = "M" + "L".join([*there, *reversed(back)]) + "Z"
        return f'<path class="area {kind}" d="{path}"><title>{escape(note)}</title></path>'

    def _resets(self) -> Iterator[str]:
        last = -1e9
        for at in self._story.resets:
            x = self._x(at)
            yield _line(x, _TOP - 4, x, _TOP + _BALANCES + _GAP + _USAGE, "reset")
            if x > _LEFT + 110 and x - last > 44:
                yield _text(x, 12, "reset", "label middle")
                last = x

    def _bars(self) -> Iterator[str]:
        bottom = _TOP + _BALANCES + _GAP + _USAGE
        most = max([float(one.amount) for one in self._story.usage] or [0.0])
        yield _line(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "zero")
        per = {"MINUTE": "minute", "HOUR": "hour", "DAY": "day", "MONTH": "month"}
        yield _text(_LEFT, bottom - _USAGE - 4, f"used per {per[self._story.window]}", "label")
        if most <= 0:
            return
        yield _text(_LEFT - 8, bottom - _USAGE + 12, number(Decimal(repr(most))), "label end")
        for one in self._story.usage:
            height = max(float(one.amount), 0.0) / most * (_USAGE - 8)
            if height:
                left = max(self._x(one.start), _LEFT)
                width = max(min(self._x(one.end), _WIDTH - _RIGHT) - left - 1, 1.5)
                note = f"{moment(one.start)}: {number(one.amount)} used"
                yield (
                    f'<rect class="used" x="{left:.1f}" y="{bottom - height:.1f}"'
                    f' width="{width:.1f}" height="{height:.1f}">'
                    f"<title>{escape(note)}</title></rect>"
                )


def _nice(step: float) -> float:
    """The next of 1, 2, 2.5 and 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _ticks(start: datetime, end: datetime) -> Iterator[datetime]:
    """Round instants, about as many as there is room for."""
    span = (end - start) / _LABELS
    steps = [timedelta(minutes=n) for n in (1, 5, 15, 30)]
    steps += [timedelta(hours=n) for n in (1, 2, 3, 6, 12)]
    steps += [timedelta(days=n) for n in (1, 2, 7, 14)]
    step = next((one for one in steps if one >= span), None)
    if step is None:
        months = max(1, ceil(span.days / 31))
        at = start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while at <= end:
            if at >= start:
                yield at
            index = at.year * 12 + at.month - 1 + months
            at = at.replace(year=index // 12, month=index % 12 + 1)
        return
    midnight = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + ceil((start - midnight) / step) * step
    while at <= end:
        yield at
        at += step


def _tick_text(at: datetime, span: timedelta) -> str:
    if span <= timedelta(days=4) and (at.hour, at.minute) != (0, 0):
        return f"{at:%H:%M}"
    return f"{at:%b %Y}" if span > timedelta(days=240) else f"{at:%-d %b}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
