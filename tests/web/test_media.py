import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.web.media import MediaType, choose, parse_media_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/json", MediaType("application/json")),
        (" Application/JSON ", MediaType("application/json")),
        (
            "application/cloudevents+json; charset=UTF-8",
            MediaType("application/cloudevents+json", {"charset": "UTF-8"}),
        ),
        ("a/b;C=d", MediaType("a/b", {"c": "d"})),
        (r'a/b; x="q\"; z" ;', MediaType("a/b", {"x": 'q"; z'})),
        ('a/b;x=""', MediaType("a/b", {"x": ""})),
        ("", None),
        ("json", None),
        ("a/", None),
        ("a/b/c", None),
        ("a/b c", None),
        ("a/b, c/d", None),
        ("a/b;x", None),
        ("a/b;x=", None),
        ("a/b;x =y", None),
        ('a/b;x="', None),
        ("a/b;x=1;X=2", None),
        ("a/b;" + "x" * 2000 + "=1", None),
    ],
)
def test_media_types(text: str, expected: MediaType | None) -> None:
    assert parse_media_type(text) == expected


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    parse_media_type(text)
    assert choose(text, ["application/json"]) in ("application/json", None)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("nonsense", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "application/json"),
        ("text/csv;q=0.9, application/json;q=0.8", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/csv;q=nan, application/json;q=0.1", "text/csv"),
        ("image/png", None),
    ],
)
def test_choice(accept: str | None, expected: str | None) -> None:
    assert choose(accept, ["application/json", "text/csv"]) == expected
