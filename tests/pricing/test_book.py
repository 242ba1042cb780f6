"""Which price is taken, and what it makes of usage: figures computed by hand, in integers."""

from decimal import Decimal

import pytest

from meterline.pricing.catalogue import VERSION
from meterline.pricing.rates import Costed, PriceSource, Rate, Tier
from tests.pricing.build import AT, day, override, quote, usd, used, why


def test_input_output_and_cached_tokens_have_their_own_rates() -> None:
    # gpt-4o: 2.50 in, 1.25 cached, 10 out, for a million.
    usage = used(input_tokens=1_000, cached_tokens=400, output_tokens=50)
    given = quote("gpt-4o", usage)
    assert usd(given) == Decimal(600 * 250 + 400 * 125 + 50 * 1000) / 100_000_000
    assert isinstance(given.outcome, Costed)
    lines = {"cached_tokens": 400, "output_tokens": 50, "input_tokens": 600}
    assert given.outcome.lines == lines
    assert given.provider == "openai" and given.state == "catalogue"


def test_the_stamp_says_which_price_it_was() -> None:
    given = quote("o3", used(input_tokens=10, output_tokens=1))
    assert isinstance(given.outcome, Costed)
    stamp = given.outcome.stamp
    assert stamp.id == "openai/o3@2025-06-10"
    assert stamp.source is PriceSource.CATALOGUE and stamp.catalogue == VERSION
    assert stamp.valid_from == day("2025-06-10")
    assert stamp.unit_prices["input_tokens"].price == 2
    assert stamp.unit_prices["input_tokens"].per == 1_000_000


@pytest.mark.parametrize(
    ("at", "expected"),
    [("2025-05-01", "50"), ("2025-06-09", "50"), ("2025-06-10", "10"), ("2026-11-01", "10")],
)
def test_the_date_of_the_event_chooses_the_price(at: str, expected: str) -> None:
    usage = used(input_tokens=1_000_000, output_tokens=1_000_000)
    assert usd(quote("o3", usage, at=day(at))) == Decimal(expected)


def test_a_date_is_the_same_instant_in_every_zone() -> None:
    from datetime import timedelta, timezone

    usage = used(input_tokens=1_000_000)
    late = day("2025-06-10").astimezone(timezone(timedelta(hours=-8)))
    assert usd(quote("o3", usage, at=late)) == 2


def test_a_tier_is_chosen_by_the_size_of_the_input_and_holds_for_all_of_the_call() -> None:
    def of(tokens: int) -> Decimal:
        usage = used(input_tokens=tokens, output_tokens=1_000)
        return usd(quote("claude-sonnet-4-5", usage))

    assert of(200_000) == Decimal(200_000 * 3 + 1_000 * 15) / 1_000_000
    assert of(200_001) == Decimal(200_001 * 60 + 1_000 * 225) / 10_000_000


def test_cache_writes_of_both_lifetimes() -> None:
    # claude-haiku-4-5: 1 in, 0.10 read, 1.25 written, 2 written for an hour, 5 out.
    usage = used(
        input_tokens=1_000,
        cached_tokens=100,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=300,
        output_tokens=10,
    )
    expected = Decimal(400 * 100 + 100 * 10 + 200 * 125 + 300 * 200 + 10 * 500) / 100_000_000
    assert usd(quote("claude-haiku-4-5", usage)) == expected


def test_whisper_is_priced_by_seconds() -> None:
    assert usd(quote("whisper-1", used(audio_seconds=90))) == Decimal("0.009")
    assert usd(quote("whisper-1", used(audio_seconds="0.5"))) == Decimal("0.00005")


def test_groq_bills_at_least_ten_seconds() -> None:
    short, ten = (
        quote("whisper-large-v3", used(audio_seconds=n), provider="groq") for n in (1, 10)
    )
    assert usd(short) == usd(ten) > 0


def test_speech_is_priced_by_characters() -> None:
    assert usd(quote("tts-1", used(characters=2_000), provider="openai")) == Decimal("0.03")


@pytest.mark.parametrize(
    ("model", "usage", "reason"),
    [
        ("tts-1", used(audio_seconds=10), "the price openai/tts-1 has no rate for audio_seconds"),
        ("gpt-4o-mini-transcribe", used(audio_seconds=10), "has no rate for audio_seconds"),
        ("whisper-1", used(input_tokens=10), "has no rate for input_tokens"),
        ("text-embedding-3-small", used(input_tokens=1, output_tokens=1), "for output_tokens"),
        ("gpt-4o", used(input_tokens=1, images=1), None),
        ("gpt-4o", used(images=2), "no rate for images"),
        ("gpt-4o", used(rerank_searches=2), "no rate for rerank_searches"),
    ],
)
def test_a_count_without_a_rate_is_never_priced_at_0(model, usage, reason) -> None:  # type: ignore[no-untyped-def]
    given = quote(model, usage, provider="openai")
    if reason is None:
        assert usd(given) > 0
    else:
        assert reason in why(given)


@pytest.mark.parametrize(
    "model",
    [
        "nobody-knows-it",
        "gpt-5-unknown",
        "gpt-4o-2030-13-01x",
        "gemini-2.5-pro-turbo",
        "gemini-3.7-flash-super",
        "claude-opus-4-10",
        "claude-opus-4-012x",
        "claude-3-5-sonnet-turbo",
        "claude-21",
        "text-moderation-of-mine",
        "",
    ],
)
def test_an_unknown_model_never_gets_the_price_of_another(model: str) -> None:
    assert why(quote(model, used(input_tokens=5)))
    for provider in ("openai", "anthropic", "google", "azure"):
        assert why(quote(model, used(input_tokens=5), provider=provider))


@pytest.mark.parametrize(
    ("model", "provider", "price"),
    [
        ("gpt-4o-2024-08-06", None, "openai/gpt-4o"),
        ("openai/gpt-4o", None, "openai/gpt-4o"),
        ("GPT-4o", "OpenAI", "openai/gpt-4o"),
        ("gpt-4o", "azure", "openai/gpt-4o"),
        ("claude-opus-4-1-20250805", None, "anthropic/claude-opus-4-1"),
        ("claude-sonnet-4-20250514", None, "anthropic/claude-sonnet-4-0"),
        ("models/gemini-2.5-flash", None, "google/gemini-2.5-flash"),
        ("gemini-2.5-pro-preview-05-06", None, "google/gemini-2.5-pro"),
        ("text-embedding-3-small", None, "openai/text-embedding-3-small"),
        ("ft:gpt-4o-2024-08-06:org::abc", None, "openai/ft:gpt-4o"),
        ("deepseek-chat", None, "deepseek/deepseek-chat"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock", "aws/"),
    ],
)
def test_a_model_is_found_by_its_spellings(model: str, provider: str | None, price: str) -> None:
    given = quote(model, used(input_tokens=5), provider=provider)
    assert isinstance(given.outcome, Costed), given
    assert given.outcome.stamp.id.startswith(price)


def test_a_bedrock_name_without_its_provider_is_nobodys() -> None:
    assert why(quote("us.anthropic.claude-sonnet-4-5-20250929-v1:0", used(input_tokens=5)))


def test_a_provider_that_the_catalogue_does_not_know_has_no_prices() -> None:
    assert "no provider acme" in why(quote("gpt-4o", used(input_tokens=5), provider="acme"))


def test_other_terms_have_their_own_price_or_none() -> None:
    usage = used(input_tokens=1_000_000)
    assert usd(quote("gpt-4o", usage, service_tier="default")) == Decimal("2.5")
    assert usd(quote("gpt-4o", usage, service_tier="priority")) == Decimal("4.25")
    assert usd(quote("gpt-4o", usage, processing="batch")) == Decimal("1.25")
    # What Groq says of every call that is not of another tier.
    groq = quote("llama-3.3-70b-versatile", usage, provider="groq", service_tier="on_demand")
    assert usd(groq) == Decimal("0.59")
    assert "service_tier scale" in why(quote("gpt-4o", usage, service_tier="scale"))
    # What was before the catalogue began to know is not known.
    assert why(quote("gpt-4o", usage, at=day("2026-10-01"), service_tier="priority"))


def test_audio_and_cached_tokens_that_may_overlap_are_not_guessed() -> None:
    price = override("m", input_tokens=1, cached_tokens="0.5", input_audio_tokens=10)
    plain = used(input_tokens=100, input_audio_tokens=40)
    assert usd(quote("m", plain, price)) == Decimal(60 + 400) / 1_000_000
    both = used(input_tokens=100, input_audio_tokens=40, cached_tokens=30)
    assert "does not say how many" in why(quote("m", both, price))
    told = used(input_tokens=100, input_audio_tokens=40, cached_tokens=30, cached_audio_tokens=10)
    assert "no rate for cached_audio_tokens" in why(quote("m", told, price))
    full = override(
        "m", input_tokens=1, cached_tokens="0.5", input_audio_tokens=10, cached_audio_tokens=2
    )
    # 40 - 10 audio, 10 cached audio, 20 other cached, 100 - 40 - 20 plain.
    assert usd(quote("m", told, full)) == Decimal(30 * 10 + 10 * 2 + 10 + 40) / 1_000_000


def test_audio_is_not_priced_as_text() -> None:
    audio = used(input_tokens=1_000_000, input_audio_tokens=1_000_000)
    for model in ("gpt-4o-audio-preview", "gpt-4o-mini-audio-preview-2024-12-17"):
        assert "no rate for input_audio_tokens" in why(quote(model, audio))
        assert "no rate for output_audio_tokens" in why(
            quote(model, used(output_tokens=5, output_audio_tokens=5))
        )
        assert usd(quote(model, used(input_tokens=5, input_audio_tokens=0)))
    assert usd(quote("gpt-audio", audio)) == 32
    assert usd(quote("gemini-2.5-pro", audio)) == Decimal("2.5"), "one rate for all modalities"
    own = override("gpt-4o-audio-preview", input_tokens=9)
    assert usd(quote("gpt-4o-audio-preview", audio, own)) == 9


class TestOverrides:
    usage = used(input_tokens=1_000_000)

    def test_an_override_wins_over_the_catalogue(self) -> None:
        given = quote("gpt-4o", self.usage, override("gpt-4o", input_tokens=7))
        assert usd(given) == 7 and given.state == "override"
        assert isinstance(given.outcome, Costed)
        assert given.outcome.stamp.id == "own" and given.outcome.stamp.catalogue is None

    def test_an_override_is_not_completed_from_the_catalogue(self) -> None:
        given = quote("gpt-4o", used(input_tokens=1, output_tokens=1),
                      override("gpt-4o", input_tokens=7))  # fmt: skip
        assert "the price own has no rate for output_tokens" in why(given)

    def test_a_price_of_0_is_a_price(self) -> None:
        given = quote("mine", self.usage, override("mine", input_tokens=0))
        assert usd(given) == 0 and given.state == "override"

    def test_it_holds_from_and_until(self) -> None:
        price = override(
            "gpt-4o", input_tokens=7, valid_from=day("2026-01-01"), valid_until=day("2026-02-01")
        )
        states = [
            quote("gpt-4o", self.usage, price, at=day(at)).state
            for at in ("2025-12-31", "2026-01-01", "2026-01-31", "2026-02-01")
        ]
        assert states == ["catalogue", "override", "override", "catalogue"]

    def test_the_more_exact_one_wins(self) -> None:
        anything = override("*", "a", input_tokens=1)
        pattern = override("gpt-*", "b", input_tokens=2)
        exact = override("gpt-4o", "c", input_tokens=3)
        ours = override("gpt-4o", "d", input_tokens=4, provider="azure")
        later = override("gpt-4o", "e", input_tokens=5, valid_from=day("2026-06-01"))
        prices = (anything, pattern, exact, ours)
        for order in (prices, prices[::-1]):
            assert usd(quote("gpt-4o", self.usage, *order)) == 3
            assert usd(quote("gpt-4o", self.usage, *order, provider="azure")) == 4
            assert usd(quote("gpt-9", self.usage, *order)) == 2
            assert usd(quote("mine", self.usage, *order)) == 1
        assert usd(quote("gpt-4o", self.usage, later, *prices)) == 5
        assert usd(quote("gpt-4o", self.usage, later, *prices, at=day("2026-05-01"))) == 3

    @pytest.mark.parametrize(
        ("own", "asked", "price"),
        [
            ("gpt-4.1", "gpt-4.1-2025-04-14", 7),
            ("gpt-4.1", "openai/gpt-4.1", 7),
            ("GPT-4.1", "gpt-4.1", 7),
            ("in-house", "acme/in-house-2026-01-01", 7),
            ("gpt-4.1", "gpt-4.1-mini", Decimal("0.4")),
            # The catalogue says that it is another model, with another price.
            ("gpt-4", "gpt-4-1106-preview", 10),
            ("gpt-4.1-2025-04-14", "gpt-4.1", 2),
        ],
    )
    def test_it_is_for_the_same_model_by_its_other_names(
        self, own: str, asked: str, price: object
    ) -> None:
        assert usd(quote(asked, self.usage, override(own, input_tokens=7))) == price

    def test_the_very_name_wins_over_the_same_model_and_that_over_a_pattern(self) -> None:
        dated = override("gpt-4.1-2025-04-14", "a", input_tokens=1)
        same = override("gpt-4.1", "b", input_tokens=2)
        pattern = override("gpt-4.1-*", "c", input_tokens=3, provider="openai")
        for order in ((dated, same, pattern), (pattern, same, dated)):
            assert usd(quote("gpt-4.1-2025-04-14", self.usage, *order)) == 1
            assert usd(quote("gpt-4.1-2025-05-15", self.usage, *order)) == 2
            assert usd(quote("gpt-4.1-mini", self.usage, *order)) == 3

    def test_the_provider_may_be_known_by_the_model(self) -> None:
        price = override("gpt-4o", input_tokens=7, provider="openai")
        assert usd(quote("gpt-4o", self.usage, price)) == 7
        assert usd(quote("gpt-4o", self.usage, price, provider="azure")) == Decimal("2.5")

    def test_rates_may_be_for_any_number_of_units(self) -> None:
        from meterline.pricing.book import Override

        minute = Override("own", "scribe", {"audio_seconds": Rate(Decimal("0.007"), 60)})
        # 0.007 / 60 does not end: rounded once, ties to even, at the eighteenth digit.
        assert usd(quote("scribe", used(audio_seconds=1), minute)) == Decimal(
            "0.000116666666666667"
        )
        assert usd(quote("scribe", used(audio_seconds=60), minute)) == Decimal("0.007")

    def test_tiers_of_an_override(self) -> None:
        from meterline.pricing.book import Override

        tiers = (Tier(10, Decimal(2)), Tier(20, Decimal(3)))
        price = Override("own", "m", {"input_tokens": Rate(Decimal(1), 1, tiers)})
        costs = [usd(quote("m", used(input_tokens=n), price)) for n in (10, 11, 20, 21)]
        assert costs == [10, 22, 40, 63]


def test_nothing_counted_costs_nothing_only_when_the_price_can_say_so() -> None:
    assert usd(quote("gpt-4o", used(input_tokens=0, output_tokens=0))) == 0
    assert why(quote("gpt-4o", used(), at=AT))
    per_call = override("m", requests=5)
    assert usd(quote("m", used(), per_call)) == Decimal("0.005")
    assert usd(quote("m", used(requests=3), per_call)) == Decimal("0.015")
