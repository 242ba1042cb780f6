"""Clients that send in parallel, keep book of every acknowledgement, and outlive their server."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.support.meters import event, rows, settle

SLUG_COUNT = "load_count"
SLUG_SUM = "load_sum"
TYPE = "load"


@dataclass
class Ledger:
    """Which events were sent, and for which of them the server said that they are safe."""

    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def fresh(self, count: int) -> list[int]:
        """Numbers of events that nobody has sent yet."""
        with self.lock:
            self._next += count
            return list(range(self._next - count, self._next))


def faults(counts: dict[int, int], ledger: Ledger) -> list[str]:
    """What is wrong with the counts that the server gives for each event; [] when nothing is."""
    lost = sorted(ledger.acknowledged - counts.keys())
    invented = sorted(counts.keys() - ledger.sent)
    several = sorted(number for number, count in counts.items() if count != 1)
    named = (("lost", lost), ("never sent", invented), ("not counted once", several))
    return [f"{name}: {len(numbers)}, e.g. {numbers[:5]}" for name, numbers in named if numbers]


class Load:
    """Several clients on threads of their own. They wait while no server is up."""

    def __init__(self, clients: int, seed: int) -> None:
        self.ledger = Ledger()
        self._url: str | None = None
        self._parked = 0
        self._over = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(Random(f"{seed}/{number}"),), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def resume(self, url: str) -> None:
        """Send to this server from now on."""
        with self._changed:
            self._url = url
            self._changed.notify_all()

    def wait_for_acknowledgements(self, more: int) -> None:
        """Wait until so many more requests were acknowledged."""
        with self._changed:
            goal = self.ledger.answers[204] + more
            done = self._changed.wait_for(
                lambda: self._failure is not None or self.ledger.answers[204] >= goal, 60
            )
        assert self._failure is None, self._failure
        assert done, "the server acknowledges nothing"

    def park(self) -> None:
        """Wait until every client has noticed that the server is gone."""
        with self._changed:
            self._url = None
            done = self._changed.wait_for(lambda: self._parked == len(self._threads), 60)
        assert self._failure is None, self._failure
        assert done, "a client is still waiting for an answer"

    def finish(self) -> None:
        """End all clients."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(60)

    def _await_url(self) -> str | None:
        with self._changed:
            self._parked += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or self._url is not None)
            self._parked -= 1
            return None if self._over else self._url

    def _run(self, choice: Random) -> None:
        try:
            unanswered: list[list[int]] = []
            while (url := self._await_url()) is not None:
                with httpx.Client(base_url=url, timeout=30.0) as client:
                    while self._url == url and not self._over:
                        if not self._send_one(client, choice, unanswered):
                            break
                with self._changed:
                    if self._url == url:  # it is gone, though nobody said so yet
                        self._url = None
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise

    def _send_one(self, client: httpx.Client, choice: Random, unanswered: list[list[int]]) -> bool:
        ledger = self.ledger
        if unanswered and choice.random() < 0.7:
            numbers = unanswered.pop()
        else:
            numbers = ledger.fresh(choice.randint(1, 40))
        if choice.random() < 0.3:  # old ones among the new: a client that is not sure
            with ledger.lock:
                old = choice.sample(range(numbers[0] + 1), min(5, numbers[0] + 1))
            numbers = list(dict.fromkeys([*numbers, *(n for n in old if n in ledger.sent)]))
        with ledger.lock:
            ledger.sent.update(numbers)
        try:
            status = post(client, numbers)
        except httpx.TransportError:
            unanswered.append(numbers)
            return False
        with self._changed:
            ledger.answers[status] += 1
            if status == 204:
                with ledger.lock:
                    ledger.acknowledged.update(numbers)
            self._changed.notify_all()
        if status == 204:
            return True
        assert status in (429, 503), status
        unanswered.append(numbers)
        return False


def post(client: httpx.Client, numbers: Sequence[int]) -> int:
    """Send these events as one batch; answers the status."""
    events = [
        event(
            f"n{number}",
            source="load",
            type=TYPE,
            subject=f"s{number % 7}",
            time=f"2024-02-{1 + number % 28:02}T00:00:00Z",
            data={"n": number, "value": "0.1"},
        )
        for number in numbers
    ]
    return client.post("/api/v1/events", json=events).status_code


def counts(client: httpx.Client) -> dict[int, int]:
    """How often each event is counted, once everything acknowledged can be seen."""
    settle(client)
    return {
        int(row["groupBy"]["n"]): int(row["value"]) for row in rows(client, SLUG_COUNT, groupBy="n")
    }
