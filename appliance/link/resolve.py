"""From a server name to the places to connect to, step by step as the specification numbers them.

    1    an IP literal: that address, the given port or 8448, a certificate for the address
    2    an explicit port: the host's addresses, that port
    3    /.well-known/matrix/server delegates to another name, and for that name:
    3.1    an IP literal          3.2  an explicit port          3.3  SRV _matrix-fed._tcp
    3.4    SRV _matrix._tcp (deprecated)                         3.5  its addresses, port 8448
    4    no delegation: SRV _matrix-fed._tcp      5  SRV _matrix._tcp (deprecated)      6  its addresses, port 8448

A certificate is always checked for the host of the (delegated) server name, never for the target of an SRV record:
the domain name system is not to be trusted, so whoever answers there must prove that it is the host.

Source: server-server API, "Resolving server names"; RFC 2782.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from appliance.link.dns import Addresses, Dns, DnsUnavailable, NoSuchRecord, Service, Services, is_host
from appliance.link.errors import Unreachable
from appliance.link.expiring import Clock, Expiring
from appliance.link.flights import Flights
from appliance.link.well_known import Delegations, Web
from appliance.matrix.ids import ServerName, split_port

FEDERATION_PORT: Final = 8448
MOST_ENDPOINTS: Final = 4
"""Targets of an SRV answer that are tried, best first."""

SHORTEST_TTL_MS: Final = 30_000
LONGEST_TTL_MS: Final = 3_600_000
ABSENT_MS: Final = 300_000
FAILED_MS: Final = 30_000
MOST_NAMES: Final = 10_000
MOST_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect to; `host` is an IP address, or a name whose addresses are still to be looked up."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Destination:
    """How to reach a server: what to say in `Host`, whom the certificate must name, and where, in order of trial."""

    host_header: str
    certificate_name: str
    endpoints: tuple[Endpoint, ...]


T = TypeVar("T")
_No: TypeAlias = type[NoSuchRecord] | type[DnsUnavailable]


class Remembered:
    """A `Dns` with a bounded memory in front, for what is there, what is not, and who does not answer."""

    def __init__(self, dns: Dns, clock: Clock, chance: Callable[[], float]) -> None:
        self._dns = dns
        self._addresses: _Memory[Addresses] = _Memory(clock, chance)
        self._services: _Memory[Services] = _Memory(clock, chance)

    async def addresses(self, host: str) -> Addresses:
        """Return the addresses of a host; `NoSuchRecord` or `DnsUnavailable`."""
        name = host.lower()
        return await self._addresses.recall(name, lambda: self._dns.addresses(name))

    async def services(self, name: str) -> Services:
        """Return the SRV records under a name; `NoSuchRecord` or `DnsUnavailable`."""
        lower = name.lower()
        return await self._services.recall(lower, lambda: self._dns.services(lower))

    async def close(self) -> None:
        """Stop what is being asked."""
        await self._addresses.close()
        await self._services.close()


class _Memory(Generic[T]):
    """The answers to one kind of question."""

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._kept: Expiring[str, tuple[T, ...] | _No] = Expiring(MOST_NAMES, clock)
        self._flights: Flights[str, tuple[T, ...] | _No] = Flights(MOST_AT_ONCE)

    async def recall(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        kept = self._kept.fresh(name)
        if kept is None:
            kept = await self._flights.join(name, lambda: self._learn(name, ask))
        if isinstance(kept, tuple):
            return kept[0]
        raise kept(name)

    async def _learn(self, name: str, ask: Callable[[], Awaitable[T]]) -> tuple[T, ...] | _No:
        kept: tuple[T, ...] | _No
        try:
            found = await ask()
            kept, lifetime = (found,), max(SHORTEST_TTL_MS, min(getattr(found, "ttl", 0) * 1000, LONGEST_TTL_MS))
        except NoSuchRecord:
            kept, lifetime = NoSuchRecord, ABSENT_MS
        except DnsUnavailable:
            kept, lifetime = DnsUnavailable, FAILED_MS
        self._kept.put(name, kept, lifetime * (1 - self._chance() / 10))
        return kept

    async def close(self) -> None:
        await self._flights.close()


class Resolver:
    """Finds servers. Everything it learns is remembered within bounds; the clock and the chance are given."""

    def __init__(self, names: Remembered, web: Web, clock: Clock, chance: Callable[[], float]) -> None:
        self._names = names
        self._chance = chance
        self._delegations = Delegations(web, clock, chance)

    async def find(self, server: ServerName) -> Destination:
        """Return how to reach the server; `Unreachable` if the domain name system does not say."""
        found = _without_lookup(server)
        if found is not None:
            return found
        delegate = await self._delegations.of(server)
        if delegate is None:
            return await self._by_services(server, server)
        return _without_lookup(delegate) or await self._by_services(server, delegate)

    async def close(self) -> None:
        """Stop what is being asked."""
        await self._delegations.close()

    async def _by_services(self, server: str, host: str) -> Destination:
        """Steps 4 to 6, which are also 3.3 to 3.5."""
        for label in ("_matrix-fed._tcp", "_matrix._tcp"):
            try:
                services = await self._names.services(f"{label}.{host}")
            except NoSuchRecord:
                continue
            except DnsUnavailable as error:
                raise Unreachable(server, "the domain name system did not answer") from error
            return Destination(host, host, self._ordered(server, services.found))
        return Destination(host, host, (Endpoint(host, FEDERATION_PORT),))

    def _ordered(self, server: str, services: Sequence[Service]) -> tuple[Endpoint, ...]:
        """Order by priority, and among equals by chance in proportion to their weight (RFC 2782)."""
        left = [service for service in services if service.port and is_host(service.target)]
        chosen: list[Service] = []
        while left and len(chosen) < MOST_ENDPOINTS:
            best = min(service.priority for service in left)
            equals = [service for service in left if service.priority == best]
            taken = _weighted(equals, self._chance())
            chosen.append(taken)
            left.remove(taken)
        if not chosen:
            raise Unreachable(server, "its domain says that it offers no federation")
        return tuple(Endpoint(service.target.rstrip("."), service.port) for service in chosen)


def _without_lookup(server: ServerName) -> Destination | None:
    """Steps 1 and 2 (3.1 and 3.2): the name itself says where to go."""
    host, port = split_port(server)
    literal = _literal(host)
    if literal is not None:
        return Destination(server, literal, (Endpoint(literal, port or FEDERATION_PORT),))
    if port is not None:
        return Destination(server, host, (Endpoint(host, port),))
    return None


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _weighted(services: Sequence[Service], chance: float) -> Service:
    """Pick one; a weight of 0 has a small chance beside others."""
    mark = chance * sum(service.weight or 0.1 for service in services)
    for service in services:
        mark -= service.weight or 0.1
        if mark < 0:
            return service
    return services[-1]
