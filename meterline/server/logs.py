"""Structured logs: one JSON object a line on standard error, never with a secret in it."""

import logging
import re
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_NAME = re.compile(r"authorization|api_?key|token|secret|password|cookie", re.IGNORECASE)
# API keys of ours, bearer credentials, signed tokens, passwords in URLs; wherever they turn up.
_SECRET_TEXT = re.compile(
    r"(?i:bearer)\s+[\w.~+/=-]+|\bml_[0-9a-z]{12}_[\w-]+|\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"
)
_REDACTED = "[redacted]"
_NOISY = ("uvicorn", "httpx", "httpcore", "alembic", "sqlalchemy", "aiosqlite", "aiokafka")


def configure_logging(
    level: str, style: Literal["auto", "json", "console"], stream: TextIO | None = None
) -> None:
    """Send the logs of this process, ours and the libraries', to `stream` in one style."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer()]
        if style == "json" or (style == "auto" and not stream.isatty())
        else [redact, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Their information lines repeat ours, or show every request.
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank what is named like a secret, and what looks like one inside a text."""
    for name, value in event.items():
        if name != "event" and _SECRET_NAME.search(name):
            event[name] = _REDACTED
        elif isinstance(value, str):
            event[name] = _SECRET_TEXT.sub(_REDACTED, value)
    return event
