"""No webhook reaches what is not on the public internet, by whatever name."""

import ipaddress
from collections.abc import Sequence
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.notifications.guard import (
    GuardedBackend,
    RefusedAddressError,
    Resolver,
    is_public,
    refused_host,
)
from entitlements.notifications.sender import HttpSender
from tests.entitlements.notifications.receiver import receiving, reply

PRIVATE = [
    "0.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1",
    "ff0e::1", "2001:db8::1", "2001::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8",
          "64:ff9b::808:808", "2002:808:808::1"]  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    assert refused_host(text)
    assert refused_host(f"[{text}]")


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_that_are_taken(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_every_wrapping(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for wrapped in (0xFFFF << 32, 0x64FF9B << 96, 0):
        inner = ipaddress.IPv6Address(wrapped | number)
        assert is_public(inner) is is_public(address)
    assert is_public(ipaddress.IPv6Address(0x2002 << 112 | number << 80)) is is_public(address)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "db.internal", "x.local"]
)
def test_names_of_this_machine(host: str) -> None:
    assert refused_host(host)


class Dialler(httpcore.AsyncNetworkBackend):
    """Notes what would be dialled."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, int]] = []

    async def connect_tcp(
        self, host: str, port: int, *_rest: Any, **_more: Any
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port))
        return httpcore.AsyncMockStream([b"HTTP/1.1 204 No Content\r\n\r\n"])


def names(table: dict[str, list[str]]) -> Resolver:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in table:
            raise OSError("no such name")
        return table[host]

    return resolve


async def dial(host: str, addresses: list[str], *, allow: bool = False) -> list[tuple[str, int]]:
    dialler = Dialler()
    guard = GuardedBackend(allow_private=allow, resolver=names({host: addresses}), dialler=dialler)
    await guard.connect_tcp(host, 443)
    return dialler.dialled


async def test_the_address_that_was_judged_is_dialled() -> None:
    assert await dial("hooks.example.com", ["93.184.216.34"]) == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::ffff:10.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
        ["fe80::1%eth0"],
        ["nonsense"],
    ],
)
async def test_a_name_at_a_private_address(addresses: list[str]) -> None:
    with pytest.raises(RefusedAddressError):
        await dial("hooks.example.com", addresses)


async def test_a_name_is_resolved_once_so_it_cannot_change_in_between() -> None:
    dialler, asked = Dialler(), []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    guard = GuardedBackend(resolver=rebinding, dialler=dialler)
    await guard.connect_tcp("rebind.example.com", 80)
    assert (asked, dialler.dialled) == (["rebind.example.com"], [("93.184.216.34", 80)])
    with pytest.raises(RefusedAddressError):
        await guard.connect_tcp("rebind.example.com", 80)


async def test_a_name_without_an_address() -> None:
    with pytest.raises(httpcore.ConnectError):
        await GuardedBackend(resolver=names({}), dialler=Dialler()).connect_tcp("nowhere", 80)


async def test_a_second_address_is_tried() -> None:
    class Half(Dialler):
        async def connect_tcp(
            self, host: str, port: int, *_rest: Any, **_more: Any
        ) -> httpcore.AsyncNetworkStream:
            stream = await super().connect_tcp(host, port)
            if len(self.dialled) == 1:
                raise httpcore.ConnectError("unreachable")
            return stream

    dialler = Half()
    guard = GuardedBackend(
        resolver=names({"a.example": ["2606:4700::1111", "1.1.1.1"]}), dialler=dialler
    )
    await guard.connect_tcp("a.example", 80)
    assert [host for host, _ in dialler.dialled] == ["2606:4700::1111", "1.1.1.1"]


async def test_no_socket_of_this_machine() -> None:
    with pytest.raises(RefusedAddressError):
        await GuardedBackend(allow_private=True).connect_unix_socket("/run/docker.sock")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
     "[::ffff:127.0.0.1]", "0"],
)  # fmt: skip
async def test_the_whole_client_refuses_what_the_system_resolves_to_loopback(host: str) -> None:
    async with receiving() as receiver:
        port = receiver.url.rsplit(":", 1)[1]
        sender = HttpSender(timeout_seconds=10)
        answer = await sender.send(f"http://{host}:{port}/in", {"host": "x"}, b"{}")
        await sender.close()
        assert (answer.status, receiver.got) == (None, [])
        assert "refused" in answer.body or "cannot be resolved" in answer.body


async def test_a_redirect_to_a_private_address_is_not_followed() -> None:
    async with receiving() as receiver:
        receiver.respond = lambda _path: reply(302, location=f"{receiver.url}/secret")
        sender = HttpSender(allow_private=True)
        answer = await sender.send(f"{receiver.url}/in", {}, b"{}")
        await sender.close()
        assert answer.status == 302
        assert [path for path, _, _ in receiver.got] == ["/in"]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, receiver.url)
        sender = HttpSender(resolver=names({"a.example": ["93.184.216.34"]}), dialler=Dialler())
        answer = await sender.send("http://a.example/in", {}, b"{}")
        await sender.close()
        assert (answer.status, receiver.got) == (204, [])
