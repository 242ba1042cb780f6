"""kill -9 and SIGTERM under load: what was acknowledged counts exactly once, always."""

from collections.abc import Callable
from decimal import Decimal
from random import Random

import pytest

from tests.support.load import SLUG_COUNT, SLUG_SUM, TYPE, Ledger, Load, counts, faults
from tests.support.meters import make_meter, total
from tests.support.server import MeterlineServer

StartServer = Callable[..., MeterlineServer]
CLIENTS = 4


def make_meters(server: MeterlineServer) -> None:
    with server.client() as client:
        group_by = {"n": "$.n"}
        make_meter(client, SLUG_COUNT, "COUNT", eventType=TYPE, groupBy=group_by)
        make_meter(client, SLUG_SUM, "SUM", eventType=TYPE, valueProperty="$.value")


def check(server: MeterlineServer, ledger: Ledger) -> None:
    with server.client() as client:
        found = counts(client)
        assert faults(found, ledger) == []
        assert total(client, SLUG_COUNT) == len(found)
        assert total(client, SLUG_SUM) == len(found) * Decimal("0.1")


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_at_random_under_load(start_server: StartServer, seed: int) -> None:
    print(f"seed {seed}")
    choice = Random(seed)
    server = start_server()
    make_meters(server)
    load = Load(CLIENTS, seed)
    try:
        for _ in range(3):
            load.resume(server.url)
            load.wait_for_acknowledgements(choice.randint(1, 60))
            server.kill()
            load.park()
            server.restart()
            check(server, load.ledger)
    finally:
        load.finish()
    assert load.ledger.acknowledged


def test_a_kill_while_starting_loses_nothing(start_server: StartServer) -> None:
    server = start_server()
    make_meters(server)
    load = Load(CLIENTS, 3)
    load.resume(server.url)
    load.wait_for_acknowledgements(30)
    server.kill()
    load.park()
    load.finish()
    for line in (1, 2):  # of a start on existing data: the warning, and the address
        server.start_and_kill_after_lines(line)
    server.restart()
    check(server, load.ledger)


def test_a_polite_stop_under_load_loses_nothing(start_server: StartServer) -> None:
    server = start_server()
    make_meters(server)
    load = Load(CLIENTS, 4)
    try:
        for _ in range(2):
            load.resume(server.url)
            load.wait_for_acknowledgements(40)
            assert server.stop() == 0, server.tail()
            load.park()
            server.restart()
            check(server, load.ledger)
    finally:
        load.finish()


def test_without_the_log_the_same_kill_loses_events(start_server: StartServer) -> None:
    """The control: events that were acknowledged and not stored are safe in the log alone."""
    server = start_server()
    make_meters(server)
    load = Load(CLIENTS, 5)
    load.resume(server.url)
    load.wait_for_acknowledgements(40)
    server.kill()
    load.park()
    load.finish()
    logs = list(server.data_dir.glob("events.log*"))
    assert logs
    for path in logs:
        path.unlink()
    server.restart()
    with server.client() as client:
        assert any(fault.startswith("lost") for fault in faults(counts(client), load.ledger))


def test_the_check_itself_sees_each_fault() -> None:
    ledger = Ledger(sent={1, 2, 3}, acknowledged={1, 2})
    assert faults({1: 1, 2: 1}, ledger) == []
    assert faults({1: 1, 2: 1, 3: 1}, ledger) == []
    assert faults({1: 1}, ledger) == ["lost: 1, e.g. [2]"]
    assert faults({1: 1, 2: 2}, ledger) == ["not counted once: 1, e.g. [2]"]
    assert faults({1: 1, 2: 1, 9: 1}, ledger) == ["never sent: 1, e.g. [9]"]
