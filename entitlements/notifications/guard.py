"""Keeps webhooks from reaching into the network that the server itself stands in.

The check is at the connection, not at the URL: a name is resolved once, every address it has is
judged, and the address that was judged is the one that is dialled. A name that answers differently
the next moment gains nothing. Redirects are never followed and proxies never used.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Every address of a host name, as text; raises `OSError` when there is none."""

SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)

_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
"""Not known to Python yet."""
_ROUTED_IPV6 = ipaddress.IPv6Network("2000::/3")


class RefusedAddressError(httpcore.ConnectError):
    """The target is not on the public internet."""


def is_public(address: Address) -> bool:
    """Whether an address is one machine's on the public internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.teredo or address in _DOCUMENTATION or address not in _ROUTED_IPV6:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
    )


def refused_host(host: str) -> bool:
    """Whether `host` is written as an address that is not public. Names are judged when dialled."""
    try:
        return not is_public(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.rstrip(".").lower().endswith(("localhost", ".local", ".internal"))


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses that the system knows."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, unless `allow_private`."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = system_resolver,
        dialler: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._dialler = dialler or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve `host`, judge what comes out, and connect to that."""
        addresses = await self._judged(host, port)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:2]:
            try:
                return await self._dialler.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise RefusedAddressError("a webhook is not sent to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _judged(self, host: str, port: int) -> list[str]:
        try:
            texts = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = []
        for text in dict.fromkeys(texts):
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                raise RefusedAddressError(f"{host} has an address that is none") from None
            # One bad address spoils the name: a public one beside it may be there to pass.
            if not self._allow_private and not is_public(address):
                raise RefusedAddressError(f"{host} is at an address that is not public")
            addresses.append(text)
        return addresses


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to `address` may end at."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
