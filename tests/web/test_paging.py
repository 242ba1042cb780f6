import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.errors import ValidationError
from meterline.web.paging import Part, decode_cursor, encode_cursor

encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
parts = st.lists(encodable | st.integers(-(2**63) + 1, 2**63 - 1), max_size=4)


@given(parts)
def test_a_cursor_comes_back_as_it_was(position: list[Part]) -> None:
    cursor = encode_cursor(position)
    assert decode_cursor(cursor, [type(part) for part in position]) == tuple(position)
    assert cursor.isascii()


@given(st.text() | parts.map(encode_cursor))
def test_any_other_text_is_an_error_of_the_caller(text: str) -> None:
    try:
        found = decode_cursor(text, [str, int])
    except ValidationError as error:
        assert error.errors[0].where == "cursor"
    else:
        assert [type(part) for part in found] == [str, int]


@pytest.mark.parametrize("position", [[True], ["x", 1], [], [2**63], [10**400], ["x" * 5000]])
def test_wrong_parts(position: list[Part]) -> None:
    with pytest.raises(ValidationError):
        decode_cursor(encode_cursor(position), [int])
