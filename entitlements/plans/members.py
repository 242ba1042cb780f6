"""Subjects and their plans: assigned, overridden, banned, and kept in line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import Reset
from entitlements.builtin import CREDITS, BuiltIns
from entitlements.plans.aligning import Aligner
from entitlements.plans.limiter import RateLimiter
from entitlements.plans.model import Ban, Happening, HistoryEntry, Member, Overrides, Plan
from entitlements.plans.options import PlanOptions
from entitlements.plans.stores import members as store
from entitlements.plans.stores import payments as payment_store
from entitlements.plans.stores import plans as plan_store
from entitlements.plans.used import used_of
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.specs import fault
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import grants as grant_store
from meterline.kernel.errors import ConflictError, MeterlineError, NotFoundError
from meterline.kernel.ids import new_ulid
from meterline.kernel.text import is_text

log = structlog.get_logger(__name__)

_TRY_AGAIN = timedelta(hours=1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What to make of a subject's plan; None leaves as it is."""

    plan: str | None = None
    """Key."""
    overrides: Overrides | None = None
    reset_balance: bool = False
    """Credits start afresh: a new period begins, and nothing of it is used yet."""
    source: str = "api"
    reason: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class MemberService:
    """What plans know of subjects."""

    def __init__(
        self,
        means: Means,
        values: ValueService,
        built_ins: BuiltIns,
        limiter: RateLimiter,
        options: PlanOptions,
    ) -> None:
        self._means = means
        self._values = values
        self._built_ins = built_ins
        self._limiter = limiter
        self._aligner = Aligner(means)
        self.options = options

    async def get(self, namespace: str, subject: str) -> Member:
        """What plans know of a subject; nothing is an answer, too."""
        self.check_subject(subject)
        async with self._means.database.read() as conn:
            found = await store.find(conn, namespace, subject)
        return found or Member(namespace, subject, None)

    async def assign(self, namespace: str, subject: str, wanted: Assignment) -> Member:
        """Give a subject a plan, or change its overrides, from now on."""
        self.check_subject(subject)
        await self._built_ins.ensure(namespace)
        used = None if wanted.reset_balance else await self.used(namespace, subject)
        async with self._means.database.transaction() as conn:
            return await self.assign_within(conn, namespace, subject, wanted, used)

    async def assign_within(
        self,
        conn: AsyncConnection,
        namespace: str,
        subject: str,
        wanted: Assignment,
        used: Decimal | None,
    ) -> Member:
        """`assign` in the caller's transaction, with what `used` said before it.

        None for a balance that is reset. Built-in features must be there.
        """
        member = await self._locked(conn, namespace, subject)
        now = self._means.now()
        plan = member.plan
        if wanted.plan is not None:
            plan = await plan_store.find(conn, namespace, wanted.plan)
            if plan is None:
                raise NotFoundError(f"there is no plan {wanted.plan}")
        elif plan is None:
            raise NotFoundError("the subject has no plan: name one")
        is_other = plan.id != (member.plan.id if member.plan else None)
        overrides = member.overrides if wanted.overrides is None else wanted.overrides
        changed = replace(
            member,
            plan=plan,
            overrides=overrides,
            assigned_at=now if is_other else member.assigned_at,
        )
        if wanted.reset_balance:
            await self._reset_credits(conn, changed, now)
        if is_other or wanted.reset_balance:
            await self._note(conn, changed, Happening.ASSIGNED, wanted, member.plan)
        if overrides != member.overrides:
            await self._note(conn, changed, Happening.OVERRIDDEN, wanted, member.plan)
        due_at = await self._aligner.align(conn, changed, now, used)
        await store.save(conn, changed, pending=False, due_at=due_at)
        return changed

    async def remove(self, namespace: str, subject: str, source: str = "api") -> None:
        """Take a subject's plan and its overrides away."""
        self.check_subject(subject)
        async with self._means.database.transaction() as conn:
            member = await store.find(conn, namespace, subject, lock=True)
            if member is None or member.plan is None:
                raise NotFoundError("the subject has no plan")
            changed = replace(member, plan=None, overrides={}, assigned_at=None)
            await self._note(
                conn, changed, Happening.REMOVED, Assignment(source=source), member.plan
            )
            due_at = await self._aligner.align(conn, changed, self._means.now(), None)
            await store.save(conn, changed, pending=False, due_at=due_at)

    async def ban(self, namespace: str, subject: str, reason: str, source: str = "api") -> Member:
        """Refuse all of a subject's checks from now on. A second ban changes the reason."""
        self.check_subject(subject)
        most = self.options.max_reason_length
        if len(reason) > most or not is_text(reason):
            raise fault("reason", f"must have at most {most} characters, and no control characters")
        async with self._means.database.transaction() as conn:
            member = await self._locked(conn, namespace, subject)
            at = member.ban.at if member.ban else self._means.now()
            if member.ban is not None and member.ban.reason == reason:
                return member
            changed = replace(member, ban=Ban(at, reason))
            wanted = Assignment(source=source, reason=reason)
            await self._note(conn, changed, Happening.BANNED, wanted, member.plan)
            await store.save(conn, changed, **await self._as_it_is(conn, member))
        return changed

    async def unban(
        self, namespace: str, subject: str, reason: str | None = None, source: str = "api"
    ) -> Member:
        """Let a subject's checks be decided again. One that is not banned stays so."""
        self.check_subject(subject)
        async with self._means.database.transaction() as conn:
            member = await store.find(conn, namespace, subject, lock=True)
            if member is None or member.ban is None:
                return member or Member(namespace, subject, None)
            changed = replace(member, ban=None)
            wanted = Assignment(source=source, reason=reason)
            await self._note(conn, changed, Happening.UNBANNED, wanted, member.plan)
            await store.save(conn, changed, **await self._as_it_is(conn, member))
        return changed

    async def history(
        self, namespace: str, subject: str, before: str | None, limit: int
    ) -> Sequence[HistoryEntry]:
        """What happened to a subject, newest first."""
        self.check_subject(subject)
        async with self._means.database.read() as conn:
            return await store.history_of(conn, namespace, subject, before, limit)

    async def grant_credits(
        self,
        conn: AsyncConnection,
        namespace: str,
        subject: str,
        amount: Decimal,
        metadata: Mapping[str, str],
    ) -> None:
        """Give credits in the caller's transaction. Built-in features must be there."""
        member = Member(namespace, subject, None)
        await self._aligner.grant_credits(conn, member, amount, metadata, self._means.now())

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget all that plans know of a subject, and end what it is entitled to, by whomever.

        Otherwise the credits that it has spent would come back with its usage erased.
        """
        async with self._means.database.transaction() as conn:
            # Locked, so that nobody makes anew meanwhile what is ended here.
            await store.find(conn, namespace, subject, lock=True)
            await self._aligner.end_all(conn, namespace, subject, self._means.now())
            await store.erase(conn, namespace, subject)
            await self._limiter.erase(conn, namespace, subject)
            await payment_store.erase(conn, namespace, subject)

    async def align_some(self) -> int:
        """Bring some subjects in line whose plan has changed, or who are due a refill.

        Answers how many; each is a transaction of its own, so a crash loses nothing.
        """
        async with self._means.database.read() as conn:
            found = await store.to_align(conn, self._means.now(), self.options.batch)
        for namespace, subject in found:
            try:
                await self._align(namespace, subject)
            except MeterlineError as error:
                log.warning("a subject's entitlements are not as its plan says", subject=subject,
                            error=error.detail)  # fmt: skip
                await self._put_off(namespace, subject)
        return len(found)

    async def used(self, namespace: str, subject: str) -> Decimal:
        """What a change of plan has to know: see `used_of`."""
        return await used_of(self._means, self._values, namespace, subject)

    def check_subject(self, subject: str) -> None:
        """Refuse what cannot be a subject."""
        most = self.options.max_subject_length
        if not 1 <= len(subject) <= most or not is_text(subject):
            raise fault("subject", f"must have 1 to {most} characters, and no control characters")

    async def _align(self, namespace: str, subject: str) -> None:
        await self._built_ins.ensure(namespace)
        used = await self.used(namespace, subject)
        async with self._means.database.transaction() as conn:
            member = await store.find(conn, namespace, subject, lock=True)
            if member is None:
                return
            due_at = await self._aligner.align(conn, member, self._means.now(), used)
            await store.save(conn, member, pending=False, due_at=due_at)

    async def _put_off(self, namespace: str, subject: str) -> None:
        """Try again later: the others must not wait for it."""
        async with self._means.database.transaction() as conn:
            member = await store.find(conn, namespace, subject, lock=True)
            if member is not None:
                later = self._means.now() + _TRY_AGAIN
                await store.save(conn, member, pending=False, due_at=later)

    async def _locked(self, conn: AsyncConnection, namespace: str, subject: str) -> Member:
        await store.make(conn, namespace, subject)
        found = await store.find(conn, namespace, subject, lock=True)
        if found is None:
            raise ConflictError("the subject was erased at this moment")
        return found

    async def _as_it_is(self, conn: AsyncConnection, member: Member) -> dict[str, Any]:
        pending, due_at = await store.work_of(conn, member.namespace, member.subject)
        return {"pending": pending, "due_at": due_at}

    async def _reset_credits(self, conn: AsyncConnection, member: Member, now: datetime) -> None:
        one = await entitlement_store.active(conn, member.namespace, member.subject, CREDITS)
        if one is None or one.metered is None or one.metered.measure_from >= now:
            return
        known = (await grant_store.resets_of(conn, [one.id])).get(one.id, [])
        if any(reset.at >= now for reset in known):
            return
        await grant_store.add_reset(conn, one.id, Reset(now, False, False), now)
        await self._means.live.invalidate(conn, one.id)

    async def _note(
        self,
        conn: AsyncConnection,
        member: Member,
        kind: Happening,
        wanted: Assignment,
        before: Plan | None,
    ) -> None:
        # Later than the last one, so that the order of ids is the one in which things happened.
        last = await store.last_noted(conn, member.namespace, member.subject)
        at = self._means.now()
        if last is not None:
            at = max(at, last + _MILLISECOND)
        data = dict(wanted.data)
        if kind in (Happening.ASSIGNED, Happening.REMOVED) and before is not None:
            data["before"] = before.key
        plan = member.plan.key if member.plan else None
        entry = HistoryEntry(new_ulid(at), at, kind, plan, wanted.reason, wanted.source, data)
        await store.note(conn, member.namespace, member.subject, entry)
