"""Rates of requests: a sliding window over a log of what was admitted. Pure.

A limit of N in a window W holds for every stretch of time of length W: an instant t admits a
request when fewer than N were admitted in (t − W, t]. So a request that came at 12:00:00.000 has
left a minute's window at 12:01:00.000, and not a microsecond before.

One log serves all windows of a subject. Its entries are numbered from 0; those of full chunks never
change, the rest is the `head`. For each window a mark says which entry was the first inside when it
was last looked at; it only moves on, so that finding it again costs next to nothing.
"""

from bisect import bisect_right
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

CHUNK = 64
"""Entries of a full chunk."""
WINDOWS = (60_000_000, 3_600_000_000, 86_400_000_000)
"""Microseconds: a minute, an hour, a day."""
_NO_MARKS = (0, 0, 0)

Chunks = Mapping[int, Sequence[int]]


class MissingChunk(Exception):  # noqa: N818 - it is a question, not an error
    """An older chunk is needed to decide."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True)
class RequestLog:
    """What was admitted of one subject. Instants are microseconds since 1970, ascending."""

    count: int = 0
    """Entries ever."""
    head: list[int] = field(default_factory=list)
    """Entries since the last full chunk."""
    marks: tuple[int, int, int] = _NO_MARKS
    chunks: MutableMapping[int, Sequence[int]] = field(default_factory=dict)
    """Full chunks that are known; the rest are in the store."""
    spilled: list[int] = field(default_factory=list)
    """Numbers of the chunks that are new and have to be stored."""
    base: int = 0
    """Chunks with lower numbers are forgotten."""
    last: int = 0
    """The newest entry."""

    def _at(self, number: int) -> int:
        first = self.count - len(self.head)
        if number >= first:
            return self.head[number - first]
        return self._chunk(number // CHUNK)[number % CHUNK]

    def _chunk(self, number: int) -> Sequence[int]:
        try:
            return self.chunks[number]
        except KeyError:
            raise MissingChunk(number) from None

    def used(self, window: int, now: int) -> int:
        """How many entries are in the window that ends at `now`. Moves the window's mark on."""
        edge = now - WINDOWS[window]
        first = self.count - len(self.head)
        if not self.head or self.head[0] > edge:
            mark = max(self.marks[window], self.base * CHUNK)
            mark = first if self.last <= edge else self._mark_in_chunks(mark, first, edge)
        else:
            mark = first + bisect_right(self.head, edge)
        marks = list(self.marks)
        marks[window] = max(mark, self.marks[window])
        self.marks = (marks[0], marks[1], marks[2])
        return self.count - self.marks[window]

    def _mark_in_chunks(self, mark: int, first: int, edge: int) -> int:
        """The first entry after the edge that is not before `mark`, all of `head` being after."""
        if mark >= first or self._at(mark) > edge:
            return mark
        low, high = mark // CHUNK, first // CHUNK
        while low < high:
            middle = (low + high) // 2
            if self._chunk(middle)[-1] <= edge:
                low = middle + 1
            else:
                high = middle
        if low == first // CHUNK:
            return first
        return low * CHUNK + bisect_right(self._chunk(low), edge)

    def oldest(self, window: int) -> int:
        """The instant of the first entry of a window, after `used`; it must not be empty."""
        return self._at(self.marks[window])

    def entry(self, number: int) -> int:
        """The instant of an entry."""
        return self._at(number)

    def add(self, now: int) -> None:
        """Note that a request was admitted."""
        self.head.append(now)
        self.last = now
        self.count += 1
        if len(self.head) == CHUNK:
            number = self.count // CHUNK - 1
            self.chunks[number] = tuple(self.head)
            self.spilled.append(number)
            self.head = []

    def needless(self, windows: Sequence[int]) -> int:
        """Chunks with lower numbers are outside of all these windows."""
        return min((self.marks[window] for window in windows), default=self.count) // CHUNK


@dataclass(frozen=True, slots=True)
class WindowState:
    """How full a window is. `free_in` is 0 when one more request fits, else microseconds."""

    window: int
    limit: int
    used: int
    free_in: int


def look(log: RequestLog, limits: Sequence[int | None], now: int) -> list[WindowState]:
    """The windows that have a limit. `limits` are for a minute, an hour and a day."""
    states = []
    for window, limit in enumerate(limits):
        if limit is None:
            continue
        used = log.used(window, now)
        free_in = 0
        if used >= limit:
            # The entry whose leaving makes room; without any there never will be.
            leaving = log.entry(log.count - limit) if limit else now
            free_in = max(leaving + WINDOWS[window] - now, 1)
        states.append(WindowState(window, limit, used, free_in))
    return states
