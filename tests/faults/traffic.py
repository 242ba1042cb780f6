"""Clients that go on whatever happens, and the book that they keep.

Each event has a number of its own. What is not acknowledged is sent again, to whichever gateway, as
often as it takes; and old events are sent once more among new ones, by clients that are not sure.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import httpx

from tests.support.meters import event

TYPE = "faults"
SUBJECTS = 5
MODELS = 3
_PAUSE_SECONDS = 0.1
_MOST = 20
_END_SECONDS = 90.0


def value_of(number: int) -> Decimal:
    """What an event adds to the sum."""
    return Decimal(f"{number % 10}.{number % 7}5")


class Traffic:
    """Several clients on threads of their own, from `start` on until `finish`.

    `addresses` are asked before each request: clients go on with what is there.
    """

    def __init__(
        self, addresses: Callable[[], Sequence[str]], key: str, run: str, seed: int
    ) -> None:
        self.run = run
        self.sent: set[int] = set()
        self.acknowledged: set[int] = set()
        self.answers: Counter[int] = Counter()
        self.began = datetime.now(UTC)
        self._addresses = addresses
        self._key = key
        self._seed = seed
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._given_up = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    @property
    def subjects(self) -> list[str]:
        """Who uses."""
        return [f"{self.run}-s{number}" for number in range(SUBJECTS)]

    def start(self, clients: int = 3) -> None:
        """Begin to send."""
        for number in range(clients):
            choice = Random(f"{self._seed}/{self.run}/{number}")
            thread = threading.Thread(target=self._client, args=(choice,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_acknowledged(self, more: int, seconds: float = 60.0) -> None:
        """Wait until so many more requests were acknowledged."""
        with self._changed:
            goal = self.answers[204] + more
            done = self._changed.wait_for(
                lambda: self._failure is not None or self.answers[204] >= goal, seconds
            )
        self._raise()
        assert done, f"nothing is acknowledged: {self.answers}"

    def wait_refused(self, more: int = 1, seconds: float = 60.0) -> None:
        """Wait until so many more requests were refused, or found nobody."""
        with self._changed:
            goal = self._refused() + more
            done = self._changed.wait_for(
                lambda: self._failure is not None or self._refused() >= goal, seconds
            )
        self._raise()
        assert done, f"nothing is refused: {self.answers}"

    def finish(self) -> None:
        """Send nothing new, and end once everything that was sent is acknowledged."""
        self._over.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._given_up.set()
        self._raise()
        assert self.sent == self.acknowledged, "clients cannot get rid of what they have to send"

    def abandon(self) -> None:
        """End, whatever was not acknowledged."""
        self._given_up.set()
        self._over.set()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._raise()

    def events(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The events of these numbers, the same every time."""
        return [
            event(
                f"n{number}",
                source=f"faults/{self.run}",
                type=TYPE,
                subject=self.subjects[number % SUBJECTS],
                time=(self.began + timedelta(milliseconds=number % 1000)).isoformat(),
                data={
                    "n": number,
                    "run": self.run,
                    "model": f"m{number % MODELS}",
                    "value": str(value_of(number)),
                },
            )
            for number in numbers
        ]

    def _refused(self) -> int:
        return sum(count for status, count in self.answers.items() if status != 204)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fresh(self, count: int) -> list[int]:
        with self._changed:
            first = len(self.sent)
            numbers = list(range(first, first + count))
            self.sent.update(numbers)
            return numbers

    def _client(self, choice: Random) -> None:
        clients: dict[str, httpx.Client] = {}
        unanswered: list[list[int]] = []
        try:
            while not self._given_up.is_set() and (unanswered or not self._over.is_set()):
                again = unanswered and (self._over.is_set() or choice.random() < 0.7)
                if again:
                    numbers = unanswered.pop(choice.randrange(len(unanswered)))
                else:
                    numbers = self._fresh(choice.randint(1, _MOST))
                if choice.random() < 0.2:
                    old = choice.sample(range(numbers[0] + 1), min(5, numbers[0] + 1))
                    numbers = list(dict.fromkeys([*numbers, *old]))
                if not self._send(clients, choice.choice(self._addresses()), numbers):
                    unanswered.append(numbers)
                # A rate, so that a long outage does not end in one great heap.
                self._given_up.wait(_PAUSE_SECONDS * (len(unanswered) + 1))
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            for client in clients.values():
                client.close()

    def _send(self, clients: dict[str, httpx.Client], url: str, numbers: list[int]) -> bool:
        if url not in clients:
            headers = {"authorization": f"Bearer {self._key}"}
            clients[url] = httpx.Client(base_url=url, timeout=10.0, headers=headers)
        try:
            answer = clients[url].post("/api/v1/events", json=self.events(numbers))
            status = answer.status_code
        except httpx.TransportError:
            status = 0
        with self._changed:
            self.answers[status] += 1
            if status == 204:
                self.acknowledged.update(numbers)
            self._changed.notify_all()
        assert status in (0, 204, 429, 503), answer.text
        assert status != 503 or "retry-after" in answer.headers, answer.headers
        return status == 204
