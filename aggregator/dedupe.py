"""Who came first: each (namespace, source, id) counts once.

`judge` is pure and exact. `SeenKeys` is a Bloom filter that spares the exact look-up for keys that
are surely new; it never decides that a key was seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from rbloom import Bloom

from aggregator.rows import CONFLICT, DUPLICATE

KEY_DTYPE = np.dtype(
    [
        ("low", "<u8"),
        ("high", "<u8"),
        ("content", "<u8"),
        ("off", "<u8"),
        ("idx", "<u4"),
        ("inexact", "u1"),
        ("settles", "u1"),
    ]
)
"""A staged event's key as the engine's RowBinary has it: 128-bit hash, content, place, flags."""

Keys = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An event that is not counted, by its place in the log, and why."""

    off: int
    idx: int
    verdict: int


def repeated(keys: Keys) -> NDArray[np.bool_]:
    """Which keys may stand more than once in the batch (never misses one)."""
    order = np.argsort(keys["low"])
    ordered = keys["low"][order]
    same = ordered[1:] == ordered[:-1]
    marks = np.zeros(len(keys), dtype=np.bool_)
    marks[order[1:]] = same
    marks[order[:-1]] |= same
    return marks


def judge(suspects: Keys, stored: Mapping[int, Sequence[int]]) -> list[Verdict]:
    """Verdicts on events whose keys may have been seen before.

    `stored` has the contents stored under a key, by its 128-bit hash. The lowest place in the log
    wins among the batch's own events; the same content again is a duplicate, and other content a
    conflict, which is kept once.
    """
    known: dict[int, set[int]] = {}
    verdicts = []
    for low, high, content, off, idx, *_ in sorted(suspects.tolist(), key=_place):
        key = (high << 64) | low
        contents = known.get(key)
        if contents is None:
            contents = known[key] = set(stored.get(key, ()))
        if content in contents:
            verdicts.append(Verdict(off, idx, DUPLICATE))
        elif contents:
            verdicts.append(Verdict(off, idx, CONFLICT))
        contents.add(content)
    return verdicts


def _place(key: tuple[int, ...]) -> tuple[int, ...]:
    return key[3:5]


class SeenKeys:
    """A Bloom filter over the keys of all stored events, growing by layers.

    Until it is `complete`, every key may have been seen. About 2 bytes a key. Threads may share it.
    """

    _FALSE_POSITIVES = 0.0005
    _SMALLEST_LAYER = 1 << 20

    def __init__(self) -> None:
        self._layers: list[Bloom] = []
        self._room = 0
        self._growing = Lock()
        self.complete = False

    def add(self, low_words: NDArray[np.uint64]) -> None:
        """Remember keys, by the low 64 bits of their hashes."""
        values = low_words.tolist()
        with self._growing:
            while values:
                if self._room == 0:
                    size = self._SMALLEST_LAYER << (2 * len(self._layers))
                    self._layers.append(Bloom(size, self._FALSE_POSITIVES))
                    self._room = size
                taken, values = values[: self._room], values[self._room :]
                self._layers[-1].update(taken)
                self._room -= len(taken)

    def maybe_seen(self, low_words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which keys may have been seen; False is certain."""
        if not self.complete:
            return np.ones(len(low_words), dtype=np.bool_)
        values = low_words.tolist()
        marks = np.zeros(len(values), dtype=np.bool_)
        for layer in tuple(self._layers):
            marks |= np.fromiter(_contained(layer, values), dtype=np.bool_, count=len(values))
        return marks


def _contained(layer: Bloom, values: Sequence[int]) -> Iterable[bool]:
    return map(layer.__contains__, values)
