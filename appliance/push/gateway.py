"""Push gateways: the only HTTP client of push, and whom it may talk to.

A pusher's address is chosen by a user, so it may point anywhere, also at machines beside us that trust their
neighbours. Therefore: https only, the one path of the specification, no redirects, and no address that is not public,
checked after the name was resolved and on exactly the addresses that are dialled. A hospital that runs its own
gateway lists it.

Source: push gateway API; client-server API, "Push notifications: Security considerations".
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from appliance.matrix import canonical
from appliance.matrix.errors import InvalidParam, MatrixError

PATH: Final = "/_matrix/push/v1/notify"
TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
ANSWER_BYTES: Final = 64 * 1024
URL_LIMIT: Final = 2048
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Undelivered(Exception):
    """The gateway did not take the notification this time."""


class Targets(msgspec.Struct, frozen=True):
    """Gateways that may be used besides public https ones, by name and by address. Those may use http."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Targets:
        """Read a list of host names, addresses and networks in CIDR form."""
        hosts, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                hosts.add(entry.lower())
        return cls(frozenset(hosts), tuple(networks))

    def listed(self, host: str) -> bool:
        """Tell whether a host (name or literal address) is on the list."""
        if host.lower() in self.hosts:
            return True
        address = _literal(host)
        return address is not None and self._within(address)

    def reachable(self, host: str, address: str) -> bool:
        """Tell whether `address`, to which `host` was resolved, may be dialled."""
        parsed = _literal(address)
        if parsed is None:
            return False
        return host.lower() in self.hosts or self._within(parsed) or _public(parsed)

    def _within(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def _literal(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address.sixtofour is not None or address.teredo is not None or address in _NAT64
    ):
        return False  # another address hides inside
    return address.is_global and not address.is_multicast


def check_url(url: str, targets: Targets) -> SplitResult:
    """Return the parts of a gateway's address; `InvalidParam` if it is none that may be used."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidParam("data.url is not an address") from error
    if len(url) > URL_LIMIT or not host or parts.username is not None or parts.fragment:
        raise InvalidParam("data.url is not an address")
    if parts.path != PATH:
        raise InvalidParam(f"The path of data.url must be {PATH}")
    if parts.scheme != "https" and not (parts.scheme == "http" and targets.listed(host)):
        raise InvalidParam("data.url must be an https address")
    address = _literal(host)
    if address is not None and not targets.reachable(host, str(address)):
        raise InvalidParam("data.url must not point into a private network")
    return parts


class _Resolver(AbstractResolver):
    """Resolves names and leaves out the addresses that must not be dialled."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._names = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        allowed = [result for result in found if self._targets.reachable(host, result["host"])]
        if not allowed:
            raise OSError(f"{host} has no address that may be used")
        return allowed

    async def close(self) -> None:
        await self._names.close()


class Gateway:
    """Posts notifications. `notify` may be called any number of times at once; `close` ends the connections."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self._session: aiohttp.ClientSession | None = None

    async def notify(self, url: str, notification: Mapping[str, Any]) -> frozenset[str]:
        """Hand over one notification and return the push keys the gateway rejects; raises `Undelivered`."""
        try:
            check_url(url, self.targets)
            body = canonical.dumps({"notification": notification})
            async with self._open().post(
                url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise Undelivered(f"status {answer.status}")
                return _rejected(await answer.content.read(ANSWER_BYTES))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, MatrixError, ValueError) as error:
            raise Undelivered(type(error).__name__) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=32, limit_per_host=8, resolver=_Resolver(self.targets))
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
                headers={"User-Agent": "Schleuse"},
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _rejected(raw: bytes) -> frozenset[str]:
    """Read the answer. A gateway that took the notification but answers nonsense rejects nothing."""
    try:
        rejected = canonical.decode_object(raw).get("rejected")
    except MatrixError:
        return frozenset()
    return frozenset(key for key in rejected if isinstance(key, str)) if isinstance(rejected, list) else frozenset()
