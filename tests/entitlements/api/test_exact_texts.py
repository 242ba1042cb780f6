"""A number in a body is no text, however it is written."""

import pytest
from pydantic import TypeAdapter, ValidationError

from entitlements.api.exact import JsonText, _Number

_TEXT = TypeAdapter(JsonText)


@pytest.mark.parametrize("number", ["2.5", "1e3", "2.3413787078188575e-297"])
def test_a_number_is_no_text(number: str) -> None:
    assert _TEXT.validate_python(number) == number
    with pytest.raises(ValidationError, match="valid string"):
        _TEXT.validate_python(_Number(number))
