"""Rates, exact over every process: groups of requests, each group one transaction.

A subject's log is one row, locked while it is decided; the groups of all processes therefore decide
one after the other about one subject. What is decided is pure (`rates`); here it is only loaded and
kept. Instants are those of this process's clock, taken once the rows are locked, and never before
the last one in a log. On SQLite a group remembers what the one before has written, as long as
nobody has written anything else to the file (`meterline.db.steps.Mark`).
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.plans.options import PlanOptions
from entitlements.plans.rates import RateAnswer, RateLimits, RateLog, decide
from entitlements.plans.stores import rates as store
from entitlements.plans.stores.rates import ChunkKey, Key
from entitlements.plans.tokens import TokenLog
from entitlements.plans.windows import MissingChunk, RequestLog
from meterline.db.engine import Database
from meterline.db.steps import Row, Steps, in_transaction, mark, on
from meterline.kernel.clock import Clock
from meterline.kernel.grouping import Grouping
from meterline.kernel.instants import to_micros

_REMEMBERED_CHUNKS = 20_000
_REMEMBERED_LOGS = 2_000
"""Of up to 15 KiB each."""
_TRIM_CHUNKS = 8
"""How many chunks may be needless before they are dropped."""


@dataclass(frozen=True, slots=True)
class Ask:
    """May this request be made? When it may, it was."""

    key: Key
    limits: RateLimits
    tokens: int
    check_id: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call was recorded with so many tokens."""

    key: Key
    tokens: int
    check_id: str | None


@dataclass(slots=True)
class _Open:
    """A subject's log while its group is decided."""

    born: int
    log: RateLog
    todo: list[int]
    limits: RateLimits | None = None
    changed: bool = False
    missing: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Memory:
    """Logs exactly as they are in the database, for as long as its mark is this one."""

    mark: Row | None = None
    logs: dict[Key, tuple[int, RateLog]] = field(default_factory=dict)

    def at(self, mark: Row | None) -> None:
        """Forget everything, unless this is the mark of what is known."""
        if mark is None or mark != self.mark:
            self.mark, self.logs = None, {}

    def learn(self, mark: Row | None, logs: Mapping[Key, "_Open"]) -> None:
        """A group was committed, and this was its mark at the end."""
        if mark is None:
            return
        if len(self.logs) > _REMEMBERED_LOGS:
            self.logs = {}
        self.mark = mark
        for key, one in logs.items():
            if one.changed:
                # Chunks are remembered apart, and those that were new are stored now.
                one.log.requests.chunks, one.log.requests.spilled = {}, []
                self.logs[key] = (one.born, one.log)
            else:
                # Looking at it may have moved it on, which nobody has written down.
                self.logs.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Done:
    """What a transaction came to, and its mark at the end."""

    answers: Sequence[RateAnswer | Exception]
    logs: Mapping[Key, _Open]
    mark: Row | None


class _MissingError(Exception):
    """Subjects that have no row to be locked yet."""

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__()
        self.keys = keys


class RateLimiter:
    """Decides about rates. Close it at the end."""

    def __init__(self, database: Database, clock: Clock, options: PlanOptions) -> None:
        self._database = database
        self._clock = clock
        self._chunks: OrderedDict[tuple[int, ChunkKey], Sequence[int]] = OrderedDict()
        self._memory = _Memory()
        self._group: Grouping[Ask | Recorded, RateAnswer] = Grouping(
            self._commit,
            name="rate limits",
            max_items=options.max_waiting,
            max_group_items=options.max_group,
        )

    async def admit(
        self, namespace: str, subject: str, limits: RateLimits, tokens: int, check_id: str
    ) -> RateAnswer:
        """Admit a request, or say why not."""
        return await self._group.submit(Ask((namespace, subject), limits, tokens, check_id))

    async def recorded(
        self, namespace: str, subject: str, tokens: int, check_id: str | None = None
    ) -> None:
        """Count tokens of a call in the last minute, instead of what was estimated of it."""
        await self._group.submit(Recorded((namespace, subject), tokens, check_id))

    async def peek(
        self, namespace: str, subject: str, limits: RateLimits, tokens: int
    ) -> RateAnswer:
        """What `admit` would answer; nothing is used."""
        async with self._database.read() as conn:
            return await on(conn, self._peek((namespace, subject), limits, tokens))

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """Forget a subject, in the caller's transaction."""
        await store.erase(conn, namespace, subject)

    async def close(self) -> None:
        """Take no more, and decide what waits."""
        await self._group.close()

    async def _commit(self, group: Sequence[Ask | Recorded]) -> Sequence[RateAnswer | Exception]:
        places: defaultdict[Key, list[int]] = defaultdict(list)
        for place, item in enumerate(group):
            places[item.key].append(place)
        keys = sorted(places, key=lambda key: (key[0].encode(), key[1].encode()))
        while True:
            try:
                done = await in_transaction(self._database, self._steps(group, places, keys))
            except _MissingError as missing:
                await self._make(missing.keys)
            except BaseException:
                # What is remembered has been decided on, and what came of it is not known.
                self._memory.at(None)
                raise
            else:
                self._memory.learn(done.mark, done.logs)
                return done.answers

    def _steps(
        self, group: Sequence[Ask | Recorded], places: Mapping[Key, list[int]], keys: Sequence[Key]
    ) -> Steps[_Done]:
        begin = yield from mark()
        self._memory.at(begin)
        known = {key: self._memory.logs[key] for key in keys if key in self._memory.logs}
        unknown = [key for key in keys if key not in known]
        kept = (yield from store.load(unknown, lock=True)) if unknown else {}
        missing = [key for key in unknown if key not in kept]
        if missing and self._database.dialect != "sqlite":
            raise _MissingError(missing)
        known |= {key: store.log_of(state) for key, state in kept.items()}
        at = self._clock()
        logs = {key: _opened(known.get(key), todo, at) for key, todo in places.items()}
        answers = yield from self._decide(group, logs, to_micros(at))
        yield from self._keep(logs, known)
        return _Done(answers, logs, (yield from mark(begin)))

    def _peek(self, key: Key, limits: RateLimits, tokens: int) -> Steps[RateAnswer]:
        kept = yield from store.load([key], lock=False)
        state = kept.get(key)
        one = _opened(None if state is None else store.log_of(state), [0], self._clock())
        while True:
            now = max(to_micros(self._clock()), one.log.requests.last)
            try:
                return decide(one.log, limits, now, tokens=tokens, consume=False)
            except MissingChunk as missing:
                one.missing = {missing.number}
                yield from self._load_chunks({key: one})

    async def _make(self, keys: Sequence[Key]) -> None:
        """Rows to be locked, in a transaction of their own: it locks in the same order."""
        now = self._clock()
        fresh = {key: _state(_opened(None, [], now)) for key in keys}
        await in_transaction(self._database, store.make(fresh))

    def _decide(
        self,
        group: Sequence[Ask | Recorded],
        logs: Mapping[Key, _Open],
        now: int,
    ) -> Steps[Sequence[RateAnswer | Exception]]:
        answers: list[RateAnswer | Exception] = [RateAnswer(True, ())] * len(group)
        waiting = dict(logs)
        while waiting:
            for one in waiting.values():
                _decide_all(one, group, answers, now)
            waiting = {key: one for key, one in waiting.items() if one.missing}
            if waiting:
                yield from self._load_chunks(waiting)
        return answers

    def _keep(self, logs: Mapping[Key, _Open], kept: Collection[Key]) -> Steps[None]:
        chunks: dict[ChunkKey, Sequence[int]] = {}
        needless: dict[Key, int] = {}
        changed = {key: one for key, one in logs.items() if one.changed}
        for key, one in changed.items():
            requests = one.log.requests
            for number in requests.spilled:
                chunks[*key, number] = requests.chunks[number]
                self._remember(one.born, (*key, number), requests.chunks[number])
            if one.limits is not None and requests.spilled:
                below = requests.needless(one.limits.windows)
                if below - requests.base >= _TRIM_CHUNKS:
                    requests.base = needless[key] = below
        states = {key: _state(one) for key, one in changed.items()}
        yield from store.save({key: state for key, state in states.items() if key in kept})
        yield from store.make({key: state for key, state in states.items() if key not in kept})
        if chunks:
            yield from store.add_chunks(chunks)
        if needless:
            yield from store.forget_chunks(needless)

    def _load_chunks(self, logs: Mapping[Key, _Open]) -> Steps[None]:
        wanted: dict[ChunkKey, _Open] = {}
        for key, one in logs.items():
            for number in one.missing:
                name = (*key, number)
                known = self._chunks.get((one.born, name))
                if known is None:
                    wanted[name] = one
                else:
                    one.log.requests.chunks[number] = known
            one.missing = set()
        found = (yield from store.load_chunks(wanted)) if wanted else {}
        for name, one in wanted.items():
            if name in found:
                one.log.requests.chunks[name[2]] = found[name]
                self._remember(one.born, name, found[name])
            else:
                # Forgotten meanwhile, as every chunk before it.
                one.log.requests.base = max(one.log.requests.base, name[2] + 1)

    def _remember(self, born: int, name: ChunkKey, entries: Sequence[int]) -> None:
        self._chunks[born, name] = entries
        while len(self._chunks) > _REMEMBERED_CHUNKS:
            self._chunks.popitem(last=False)


def _opened(kept: tuple[int, RateLog] | None, todo: Sequence[int], at: datetime) -> _Open:
    if kept is None:
        return _Open(to_micros(at), RateLog(RequestLog(), TokenLog()), list(todo))
    return _Open(*kept, list(todo))


def _state(one: _Open) -> bytes:
    return store.state_of(one.born, one.log)


def _decide_all(
    one: _Open,
    group: Sequence[Ask | Recorded],
    answers: list[RateAnswer | Exception],
    now: int,
) -> None:
    """Decide one subject's items in order, until an older chunk is needed."""
    now = max(now, one.log.requests.last)
    while one.todo:
        place = one.todo[0]
        item = group[place]
        if isinstance(item, Recorded):
            one.log.tokens.forget(now)
            one.log.tokens.settle(item.tokens, now, item.check_id)
            one.changed = True
        else:
            try:
                answer = decide(
                    one.log, item.limits, now, tokens=item.tokens, check_id=item.check_id
                )
            except MissingChunk as missing:
                one.missing.add(missing.number)
                return
            answers[place] = answer
            one.limits = item.limits
            one.changed = one.changed or answer.admitted
        one.todo.pop(0)
