"""The limits of JSON data, measured on its bytes: no object is built from what may be a bomb."""

import re

import numpy as np

from ingest.limits import IngestLimits

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SPACE = b" \t\n\r"


def free_size(limits: IngestLimits) -> int:
    """Data shorter than this cannot break a limit: there is no room for it.

    A level needs two brackets, a member two characters, and a digit one.
    """
    return min(2 * limits.max_depth, 2 * limits.max_members, limits.max_number_digits)


def data_fault(data: bytes, limits: IngestLimits) -> str | None:
    """The limit that a valid JSON text breaks, None if it keeps them all."""
    bare = _STRING.sub(b'"', data)
    if _members(bare) > limits.max_members:
        return f"has more than {limits.max_members} members"
    if _depth(bare) > limits.max_depth:
        return f"is nested deeper than {limits.max_depth} levels"
    digits = limits.max_number_digits
    if len(bare) > digits and re.search(rb"[0-9eE+.-]{%d}" % (digits + 1), bare):
        return f"holds a number of more than {digits} characters"
    return None


def count_members(text: bytes) -> int:
    """Members and elements of a valid JSON text, over all its levels."""
    return _members(_STRING.sub(b'"', text))


def _members(bare: bytes) -> int:
    # Every comma has a member before it, and a container that is not empty has one more.
    dense = bare.translate(_BRACKETS, _SPACE)
    return dense.count(b",") + dense.count(b"[") - dense.count(b"[]")


def _depth(bare: bytes) -> int:
    brackets = bare.translate(_BRACKETS, _NOT_BRACKETS)
    if len(brackets) <= 2:
        return len(brackets) // 2
    # "[" is 91 and "]" is 93: one level down and one level up.
    steps = 92 - np.frombuffer(brackets, dtype=np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max())
