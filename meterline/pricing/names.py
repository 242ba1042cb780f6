"""Which spellings name the same model: dates, versions and ways to reach it, nothing else. Pure."""

import re

_PREFIX = re.compile(r"(?:[a-z0-9@_-]+[./:])*")
_DATE = r"20\d{2}-?[01]\d-?[0-3]\d|[01]\d-[0-3]\d|[01]\d-20\d{2}"
_WORD = rf"{_DATE}|\d{{3,4}}|v\d+(?:\.\d+)?(?::\d+)?|latest|preview|exp|beta|it|instruct|chat"
_WORDS = rf"(?:[-@:_](?:{_WORD})|:\d{{1,2}})*"
_SUFFIX = re.compile(_WORDS)
_AFTER_SEPARATOR = re.compile(rf"(?:(?:{_WORD}){_WORDS})?")
_REST_OF_NUMBER = re.compile(rf"[\d-]*{_WORDS}")


def names(known: str, model: str) -> bool:
    """Whether `model` names the model that `known` names, somewhere in it; both in lower case."""
    # Looked for first: a namespace can have thousands of names, and most are not there.
    return (
        bool(known)
        and known in model
        and any(
            is_same_model(model[: one.start()], known, model[one.end() :])
            for one in re.finditer(re.escape(known), model)
        )
    )


def is_same_model(before: str, known: str, after: str) -> bool:
    """Whether `before + known + after` names the model that `known` names, all in lower case.

    `us.anthropic.` before, `-20250929-v1:0` or `-latest` after name the same model; `-turbo` or
    another digit name another one. A fine-tuned model is named by its beginning.
    """
    if _PREFIX.fullmatch(before) is None:
        return False
    if known.startswith("ft:"):
        return True
    if not known:
        return False
    if known[-1] in "-@:_":
        return _AFTER_SEPARATOR.fullmatch(after) is not None
    if _SUFFIX.fullmatch(after):
        return True
    # A name that was cut off inside a date or a revision: `claude-sonnet-4-2025`, `flash-0`.
    cut = re.search(r"[-@](?:0|20\d{2}-?)$", known)
    return cut is not None and _REST_OF_NUMBER.fullmatch(after) is not None
