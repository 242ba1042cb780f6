"""Price files of others."""

import json
from decimal import Decimal
from typing import Any

import pytest

from meterline.pricing.importers import FORMATS, Imported
from meterline.pricing.rates import Rate, Tier

LITELLM = """{
  "sample_spec": {"litellm_provider": "one of ...", "input_cost_per_token": 0.0},
  "gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.5e-06,
    "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-06,
    "input_cost_per_token_batches": 1.25e-06, "max_tokens": 16384},
  "gemini/gemini-pro": {"litellm_provider": "gemini", "input_cost_per_token": 1.25e-06,
    "input_cost_per_token_above_200k_tokens": 2.5e-06, "output_cost_per_token": 1e-05},
  "whisper-1": {"litellm_provider": "openai", "input_cost_per_second": 0.0001,
    "output_cost_per_second": 0.0001},
  "free": {"litellm_provider": "acme", "input_cost_per_token": 0},
  "nothing": {"litellm_provider": "acme", "max_tokens": 5},
  "odd": {"litellm_provider": "acme", "input_cost_per_token": "dear", "output_cost_per_token": -1},
  "odder": 7
}"""
MODELS_DEV = """{
  "openai": {"id": "openai", "models": {
    "gpt-4o": {"id": "gpt-4o", "cost": {"input": 2.5, "output": 10, "cache_read": 1.25}},
    "free": {"id": "free"}}},
  "google": {"models": {"gemini-pro": {"cost": {"input": 1.25, "output": 10, "dance": 3,
    "context_over_200k": {"input": 2.5, "output": 15}}}}},
  "none": {"models": {}}
}"""


def read(name: str, text: str) -> dict[tuple[str, str], Imported]:
    found = FORMATS[name](json.loads(text, parse_float=Decimal))
    return {(one.provider, one.model): one for one in found}


def per_million(price: str, *tiers: tuple[int, str]) -> Rate:
    return Rate(Decimal(price), 1_000_000, tuple(Tier(n, Decimal(one)) for n, one in tiers))


def test_litellm() -> None:
    found = read("litellm", LITELLM)
    assert set(found) == {
        ("openai", "gpt-4o"), ("gemini", "gemini-pro"), ("openai", "whisper-1"), ("acme", "free"),
    }  # fmt: skip
    gpt = found["openai", "gpt-4o"]
    assert gpt.rates == {
        "input_tokens": per_million("2.5"),
        "output_tokens": per_million("10"),
        "cached_tokens": per_million("1.25"),
    }
    assert gpt.ignored == ("input_cost_per_token_batches",)
    assert found["gemini", "gemini-pro"].rates["input_tokens"] == per_million(
        "1.25", (200_000, "2.5")
    )
    assert found["openai", "whisper-1"].rates == {"audio_seconds": Rate(Decimal("0.0001"), 1)}
    assert found["acme", "free"].rates == {"input_tokens": per_million("0")}


def test_models_dev() -> None:
    found = read("models.dev", MODELS_DEV)
    assert set(found) == {("openai", "gpt-4o"), ("google", "gemini-pro")}
    assert found["openai", "gpt-4o"].rates["cached_tokens"] == per_million("1.25")
    gemini = found["google", "gemini-pro"]
    assert gemini.rates["output_tokens"] == per_million("10", (200_000, "15"))
    assert gemini.ignored == ("dance",)


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("body", [None, [], {}, {"a": []}, {"a": {"models": []}}, "text", 5])
def test_what_is_no_price_file_has_no_prices(name: str, body: Any) -> None:
    assert list(FORMATS[name](body)) == []
