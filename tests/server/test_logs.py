import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from meterline.server.logs import configure_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_both_ways_of_logging_give_one_json_object_a_line(lines: io.StringIO) -> None:
    logging.getLogger("a.b").info("hello %s", "there", extra={"count": 3})
    structlog.get_logger("c").warning("again", count=4)
    logging.getLogger("a.b").debug("not shown")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["event"], first["count"], first["logger"]) == ("hello there", 3, "a.b")
    assert (second["event"], second["count"], second["level"]) == ("again", 4, "warning")
    assert first["timestamp"].endswith("Z")


def test_no_secret_reaches_the_log(lines: io.StringIO) -> None:
    key = "ml_" + "a" * 12 + "_" + "B" * 43
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    logger = logging.getLogger("x")
    logger.info("sent %s", key, extra={"authorization": "Bearer abc.def", "apiKey": "hidden-1"})
    logger.info("with Bearer hidden-2 and %s", jwt)
    try:
        raise ValueError(f"bad {key}")
    except ValueError:
        logger.exception("failed")
    text = lines.getvalue()
    for secret in (key, jwt, "abc.def", "hidden-1", "hidden-2"):
        assert secret not in text
    assert text.count("[redacted]") >= 5


def test_an_exception_is_one_line_with_its_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (entry,) = map(json.loads, lines.getvalue().splitlines())
    assert "ValueError: why" in entry["exception"]


def test_a_password_in_a_url_is_not_shown(lines: io.StringIO) -> None:
    url = "postgresql://meterline:hush%21@db:5432/meterline"
    logging.getLogger("x").warning("cannot reach %s", url, extra={"where": url})
    said = lines.getvalue()
    assert "hush" not in said
    assert said.count("postgresql://[redacted]@db:5432/meterline") == 2
