"""A process that forks: neither may get the answers of the other."""

import os
import subprocess
import sys

import pytest

from tests.sdk.loopback import Asked, Reply, loopback

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

_FORK = """
import asyncio, os, sys
from meterline_sdk import AsyncMeterline, Meterline, RetryPolicy

meterline = Meterline(sys.argv[1], retries=RetryPolicy(0))
later = AsyncMeterline(sys.argv[1], retries=RetryPolicy(0))

def use(who):
    assert meterline.check(who).subject == who
    meterline.track_event("llm.usage", who)
    meterline.record_response(who, {}, provider="openai")
    assert meterline.buffer.flush() and meterline.records.flush()

async def wait(who):
    assert (await later.check(who)).subject == who

use("before")
asyncio.run(wait("before"))
meterline.buffer.put({"subject": "of the parent"})
pid = os.fork()
if pid == 0:
    use("child")
    asyncio.run(wait("child"))
    os._exit(0)
use("parent")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
meterline.close()
"""


def _subjects(asked: Asked) -> list[str]:
    given = asked.body if isinstance(asked.body, list) else [asked.body]
    return [one.get("subject") or one["key"] for one in given]


def test_parent_and_child_have_connections_of_their_own() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(200, {"allowed": True, "subject": _subjects(asked)[0]})

    with loopback(answer) as server:
        done = subprocess.run(
            [sys.executable, "-c", _FORK, server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        ours = {one.peer for one in server.asked if "child" in _subjects(one)}
        theirs = {one.peer for one in server.asked if "child" not in _subjects(one)}
    assert len(ours) == 4
    assert ours.isdisjoint(theirs)
    sent = [subject for one in server.of("/api/v1/events") for subject in _subjects(one)]
    assert sorted(sent) == ["before", "child", "of the parent", "parent"]
