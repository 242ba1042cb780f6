"""Random allowances and usage on a coarse grid of time, so that things often coincide."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

from entitlements.balance import Allowance, Grant, Metering, Reset, Terms
from meterline.kernel.periods import Interval, Recurrence, parse_interval
from tests.entitlements.balance.usage import Event

BASE = datetime(2025, 1, 31, tzinfo=UTC)
TICK = timedelta(hours=12)
TICKS = 160

unhurried = settings(deadline=None)
"""Other work on the machine is no failure."""

instants = st.integers(0, TICKS).map(lambda n: BASE + n * TICK)
exact_instants = st.builds(
    lambda t, ms: t + timedelta(milliseconds=ms), instants, st.sampled_from([0, 0, 0, 1, 43199999])
)
amounts = st.sampled_from(
    [Decimal(text) for text in ("1", "10", "0.1", "7.5", "100", "0.000000000000000001")]
) | st.decimals(0, 100, places=3).filter(bool)
intervals: st.SearchStrategy[Interval] = st.sampled_from(
    [parse_interval(text) for text in ("P1D", "P1W", "P1M", "P10DT12H", "P2M")]
)
anchors = st.integers(-80, 200).map(lambda n: BASE + n * TICK)
recurrences = st.builds(Recurrence, anchors, intervals)


@st.composite
def grants(draw: st.DrawFn, number: int) -> Grant:
    amount = draw(amounts)
    rollover = st.sampled_from([Decimal(0), amount / 2, amount, amount * 2])
    effective_at = draw(exact_instants | anchors)
    ends = st.none() | anchors
    return Grant(
        id=f"g{number}",
        amount=amount,
        effective_at=effective_at,
        created_at=draw(st.sampled_from([BASE, BASE + TICK])),
        priority=draw(st.integers(1, 3)),
        expires_at=draw(ends),
        voided_at=draw(st.none() | ends),
        min_rollover=draw(rollover),
        max_rollover=draw(rollover),
        recurrence=draw(st.none() | recurrences),
    )


@st.composite
def allowances(draw: st.DrawFn, metering: Metering = Metering.ADDITIVE) -> Allowance:
    terms = Terms(
        measure_from=BASE,
        usage_period=draw(recurrences),
        metering=metering,
        preserve_overage_at_reset=draw(st.booleans()),
    )
    given = [draw(grants(number)) for number in range(draw(st.integers(0, 5)))]
    at = draw(st.lists(exact_instants.filter(lambda t: t > BASE), unique=True, max_size=3))
    resets = [Reset(t, draw(st.booleans()), draw(st.sampled_from([None, True, False]))) for t in at]
    return Allowance(terms, tuple(given), tuple(resets))


events = st.lists(st.builds(Event, exact_instants, amounts), max_size=25)
corrected_events = st.lists(
    st.builds(
        lambda t, amount, sign, text: Event(t, amount * sign, text),
        exact_instants,
        amounts,
        st.sampled_from([1, 1, -1]),
        st.sampled_from("abcdef"),
    ),
    max_size=25,
)
