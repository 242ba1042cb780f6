"""What was used of a subject's refills, whatever has become of them since."""

from decimal import Decimal

from entitlements.balance import burn, period_at, plan
from entitlements.balance.exact import ZERO
from entitlements.builtin import CREDITS
from entitlements.plans.refills import counting_since, used_of_refills
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.stores import entitlements as store


async def used_of(means: Means, values: ValueService, namespace: str, subject: str) -> Decimal:
    """What was used of those whose intervals are not over.

    The history of the balance says it, not what is left of the grants: so it counts once, however
    often the plan changes or goes meanwhile.
    """
    now = means.reading_time()
    async with means.database.read() as conn:
        one = await store.active(conn, namespace, subject, CREDITS)
    if one is None or one.metered is None or one.metered.measure_from > now:
        return ZERO
    loaded = await values.load(namespace, subject, one.id, now)
    metered = await values.metered(loaded)
    since = counting_since(loaded.grants, period_at(metered.allowance, now), now)
    if not since:
        return ZERO
    # A reset by hand starts afresh: what was used before it counts no more.
    resets = [reset.at for reset in loaded.resets if reset.at <= now]
    begin = max(min(since.values()), one.metered.measure_from, *resets)
    planned = plan(metered.allowance, now, marks=[begin])
    usage = await means.usage.read(metered.query, planned.spans)
    return used_of_refills(burn(planned, usage, record_from=begin).segments, since)
