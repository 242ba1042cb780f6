"""Whether the server lives (`/healthz`) and whether it can do its work (`/readyz`)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from meterline.kernel.errors import MeterlineError

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. `detail` holds figures for people and programs, never a secret."""

    ok: bool
    detail: Mapping[str, Any]


Check = Callable[[], Awaitable[CheckResult]]


class Readiness:
    """Runs named checks side by side. A check that fails, or that takes too long, is not ok."""

    def __init__(
        self, checks: Mapping[str, Check], patience_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        self._checks = dict(checks)
        self._patience_seconds = patience_seconds

    async def report(self, exclude: Collection[str] = ()) -> tuple[bool, dict[str, Any]]:
        """Whether all is well but for what is excluded, and the body of `/readyz`."""
        checks = {name: one for name, one in self._checks.items() if name not in exclude}
        results = await asyncio.gather(*(self._run(*item) for item in checks.items()))
        ready = all(result.ok for result in results)
        return ready, {
            "status": "ready" if ready else "not ready",
            "checks": {
                name: {"status": "ok" if result.ok else "failed", **result.detail}
                for name, result in zip(checks, results, strict=True)
            },
        }

    async def _run(self, name: str, check: Check) -> CheckResult:
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await check()
        except TimeoutError:
            return CheckResult(False, {"reason": f"no answer in {self._patience_seconds:g} s"})
        except MeterlineError as error:
            return CheckResult(False, {"reason": error.detail or error.title})
        except Exception:
            logger.exception("the readiness check %s failed", name)
            return CheckResult(False, {"reason": "failed; the log says more"})
