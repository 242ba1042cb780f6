"""What holds for all prices and all usage."""

from decimal import Decimal

from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.quantity import FRACTION_DIGITS
from meterline.pricing.catalogue import GenaiCatalogue
from meterline.pricing.cost import cost
from meterline.pricing.rates import Costed, Price, PriceSource, Rate, Unpriced
from meterline.pricing.usage import TokenUsage, add, usage_of
from tests.pricing.build import AT

_COUNTS = st.integers(0, 10**9)
_PRICES = st.decimals(0, 1_000, places=9, allow_nan=False)
_KEYS = ("input_tokens", "cached_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
         "output_tokens", "reasoning_tokens", "requests")  # fmt: skip


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Usage whose parts are parts of their whole, with some of it unknown."""
    cached, five, hour, plain = (draw(_COUNTS) for _ in range(4))
    reasoning, answer = draw(_COUNTS), draw(_COUNTS)
    counts = {
        "input_tokens": cached + five + hour + plain,
        "cached_tokens": cached,
        "cache_write_5m_tokens": five,
        "cache_write_1h_tokens": hour,
        "output_tokens": reasoning + answer,
        "reasoning_tokens": reasoning,
    }
    if draw(st.booleans()):
        counts = {"input_tokens": cached + plain, "cached_tokens": cached}
    return usage_of({"requests": Decimal(1), **{k: Decimal(v) for k, v in counts.items()}})


@st.composite
def prices(draw: st.DrawFn) -> Price:
    keys = draw(st.sets(st.sampled_from(_KEYS)))
    rates = {key: Rate(draw(_PRICES), 1_000_000) for key in keys}
    return Price("p", PriceSource.OVERRIDE, None, "m", rates)


@given(prices(), usages(), usages())
def test_cost_is_additive(price: Price, one: TokenUsage, other: TokenUsage) -> None:
    parts = [cost(price, one), cost(price, other)]
    whole = cost(price, add(one, other))
    if all(isinstance(part, Costed) for part in parts):
        assert isinstance(whole, Costed)
        assert whole.cost_usd == sum(part.cost_usd for part in parts if isinstance(part, Costed))
    else:
        assert isinstance(whole, Unpriced)


@given(prices(), usages())
def test_cost_is_the_sum_of_counts_at_their_prices_and_no_float(
    price: Price, usage: TokenUsage
) -> None:
    found = cost(price, usage)
    if isinstance(found, Unpriced):
        assert found.reason
        return
    total = Decimal(0)
    for key, count in found.lines.items():
        unit = found.stamp.unit_prices[key]
        assert type(count) is Decimal and count >= 0
        assert type(unit.price) is Decimal and type(unit.per) is int
        total += count * unit.price / unit.per
    assert type(found.cost_usd) is Decimal
    assert found.cost_usd.as_tuple().exponent == -FRACTION_DIGITS
    assert found.cost_usd == total
    tokens = sum(count for key, count in found.lines.items() if key.endswith("_tokens"))
    wholes = ((usage.input_tokens, "input"), (usage.output_tokens, "output"))
    assert tokens <= sum(count or 0 for count, _ in wholes)


@given(prices(), usages())
def test_what_has_no_rate_is_unpriced_and_what_is_priced_has_one(
    price: Price, usage: TokenUsage
) -> None:
    covered = {
        "input_tokens": {"input_tokens"},
        "output_tokens": {"output_tokens"},
    }
    found = cost(price, usage)
    for whole, rates in covered.items():
        count = getattr(usage, whole)
        if count and not rates & price.rates.keys() and isinstance(found, Costed):
            # Then every part of it has a rate of its own, or the family has no rate at all.
            raise AssertionError(f"{whole} was left out")


_MODELS = sorted(
    {(one.provider, one.id) for one in GenaiCatalogue().models(None, AT)}
    & {
        ("openai", "gpt-4o"), ("openai", "o3"), ("openai", "gpt-5"), ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-opus-4-5"), ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-haiku-4-5"), ("google", "gemini-2.5-pro"),
        ("google", "gemini-2.5-flash"), ("deepseek", "deepseek-chat"), ("mistral", "mistral-large"),
    }
)  # fmt: skip


@given(st.sampled_from(_MODELS), usages())
def test_the_package_of_the_catalogue_agrees(model: tuple[str, str], usage: TokenUsage) -> None:
    price = GenaiCatalogue().find(*model, AT, {})
    assert isinstance(price, Price)
    found = cost(price, usage)
    assert isinstance(found, Costed)
    provider, info = get_snapshot().find_provider_model(model[1], None, model[0], None)
    theirs = info.calc_price(_theirs(usage), provider, genai_request_timestamp=AT)
    assert theirs.total_price == found.cost_usd


def _theirs(usage: TokenUsage) -> Usage:
    names = {
        "input_tokens": "input_tokens",
        "cached_tokens": "cache_read_tokens",
        "cache_write_tokens": "cache_write_tokens",
        "cache_write_5m_tokens": "cache_write_5m_tokens",
        "cache_write_1h_tokens": "cache_write_1h_tokens",
        "output_tokens": "output_tokens",
        "reasoning_tokens": "output_reasoning_tokens",
    }
    counts = {names[key]: int(count) for key, count in usage.counts().items() if key in names}
    return Usage(**{"output_tokens": 0, **counts})
