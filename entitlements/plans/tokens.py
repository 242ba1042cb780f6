"""Tokens a minute: what was recorded, and what is estimated of calls in flight. Pure.

Recorded tokens count for a minute from when they are recorded; to keep the log short they are
gathered by quarters of a second, each of which counts until its end has left the minute, so that
never more is admitted than the limit says. A check with an estimate counts as so many tokens from
the check on, until its call is recorded, which then counts instead; or until a minute has passed.
"""

from dataclasses import dataclass, field

WINDOW = 60_000_000
"""Microseconds."""
_STEP = 250_000
MAX_IN_FLIGHT = 64
"""Estimates of a subject that are told apart; older ones beyond it count like recorded tokens."""


@dataclass(slots=True)
class TokenLog:
    """The last minute of one subject. Instants are microseconds since 1970, ascending."""

    recorded: list[tuple[int, int]] = field(default_factory=list)
    """(end of the quarter of a second, tokens)."""
    in_flight: list[tuple[str, int, int]] = field(default_factory=list)
    """(id of the check, its instant, tokens)."""

    def forget(self, now: int) -> None:
        """Drop what has left the minute that ends at `now`."""
        edge = now - WINDOW
        if self.recorded and self.recorded[0][0] <= edge:
            self.recorded = [one for one in self.recorded if one[0] > edge]
        if self.in_flight and self.in_flight[0][1] <= edge:
            self.in_flight = [one for one in self.in_flight if one[1] > edge]

    @property
    def used(self) -> int:
        """Tokens in the minute, after `forget`."""
        return sum(one[1] for one in self.recorded) + sum(one[2] for one in self.in_flight)

    def estimate(self, check_id: str, tokens: int, now: int) -> None:
        """A call begins that may use so many tokens."""
        if not tokens:
            return
        self.in_flight.append((check_id, now, tokens))
        if len(self.in_flight) > MAX_IN_FLIGHT:
            _, _, oldest = self.in_flight.pop(0)
            self.record(oldest, now)

    def settle(self, tokens: int, now: int, check_id: str | None = None) -> None:
        """A call was recorded: its estimate, or the oldest one if it names none, is replaced."""
        if check_id is not None:
            self.in_flight = [one for one in self.in_flight if one[0] != check_id]
        elif self.in_flight:
            del self.in_flight[0]
        self.record(tokens, now)

    def record(self, tokens: int, now: int) -> None:
        """Count tokens."""
        if not tokens:
            return
        end = now - now % _STEP + _STEP
        if self.recorded and self.recorded[-1][0] >= end:
            last, before = self.recorded[-1]
            self.recorded[-1] = (last, before + tokens)
        else:
            self.recorded.append((end, tokens))

    def free_in(self, needed: int, limit: int, now: int) -> int:
        """Microseconds until `needed` more tokens fit, if nothing else comes; 0 if they fit now.

        More than the limit never fit: then it is a whole minute. After `forget`.
        """
        if needed > limit:
            return WINDOW
        excess = self.used + needed - limit
        if excess <= 0:
            return 0
        leaving = sorted([*self.recorded, *((at, tokens) for _, at, tokens in self.in_flight)])
        for at, tokens in leaving:
            excess -= tokens
            if excess <= 0:
                return max(at + WINDOW - now, 1)
        return WINDOW
