"""Questions to the domain name system, with the two kinds of no: there is no such record, or nobody could say.

`SystemDns` asks the resolvers of the machine (c-ares: /etc/resolv.conf, /etc/hosts) without a thread per question and
without the search list: a server name is complete as it is.

Source: RFC 1035, RFC 2782 (SRV).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import aiodns
import pycares
from aiodns import error

QUESTION_SECONDS: Final = 3.0
TRIES: Final = 2
MOST_RECORDS: Final = 16
"""Records of one answer that are looked at; nobody needs more, and a zone file can hold thousands."""

_NO_SUCH: Final = frozenset({error.ARES_ENOTFOUND, error.ARES_ENODATA, error.ARES_ENONAME, error.ARES_EBADNAME})
_LABEL: Final = "[0-9A-Za-z_][0-9A-Za-z_-]{0,62}"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\.?\Z){_LABEL}(?:\.{_LABEL})*\.?")

T = TypeVar("T")


class NoSuchRecord(Exception):
    """The name, or the record of this kind under it, does not exist."""


class DnsUnavailable(Exception):
    """Nobody could say: a server failed or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """IPv4 and IPv6 addresses in the order in which to try them, and how long they may be kept (seconds)."""

    found: tuple[str, ...]
    ttl: int


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record; a `target` of `.` says that the service is not offered."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Services:
    """The SRV records under one name, and how long they may be kept (seconds)."""

    found: tuple[Service, ...]
    ttl: int


class Dns(Protocol):
    """What finding a server needs; both raise `NoSuchRecord` or `DnsUnavailable`."""

    async def addresses(self, host: str) -> Addresses:
        """Look up A and AAAA, following CNAMEs."""
        ...

    async def services(self, name: str) -> Services:
        """Look up SRV."""
        ...


def is_host(name: str) -> bool:
    """Tell whether the text can be a name in the domain name system at all."""
    return _HOST.fullmatch(name) is not None


class SystemDns:
    """The resolvers of this machine, or the given ones. Made on the event loop; `close` at the end."""

    def __init__(self, nameservers: Sequence[str] | None = None) -> None:
        self._resolver = aiodns.DNSResolver(
            nameservers, loop=asyncio.get_running_loop(), timeout=QUESTION_SECONDS, tries=TRIES,
            flags=pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS,
        )

    async def addresses(self, host: str) -> Addresses:
        """Look up A and AAAA, following CNAMEs; /etc/hosts counts."""
        if not is_host(host):
            raise NoSuchRecord(host)
        answer = await _answer(host, self._resolver.getaddrinfo(host, type=socket.SOCK_STREAM))
        nodes = [node for node in answer.nodes if node.family in (socket.AF_INET, socket.AF_INET6)][:MOST_RECORDS]
        found = dict.fromkeys(_text(node.addr[0]) for node in nodes)
        if not found:
            raise NoSuchRecord(host)
        return Addresses(tuple(found), min(node.ttl for node in nodes))

    async def services(self, name: str) -> Services:
        """Look up SRV; /etc/hosts does not count."""
        if not is_host(name):
            raise NoSuchRecord(name)
        answer = await _answer(name, self._resolver.query_dns(name, "SRV"))
        records = [record for record in answer.answer if isinstance(record.data, pycares.SRVRecordData)][:MOST_RECORDS]
        if not records:
            raise NoSuchRecord(name)
        found = tuple(_service(record.data) for record in records if isinstance(record.data, pycares.SRVRecordData))
        return Services(found, min(record.ttl for record in records))

    async def close(self) -> None:
        """Stop asking."""
        await self._resolver.close()


def _service(data: pycares.SRVRecordData) -> Service:
    return Service(data.priority, data.weight, data.port, data.target)


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address


async def _answer(name: str, question: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(QUESTION_SECONDS * TRIES * 2):
            return await question
    except error.DNSError as problem:
        if problem.args and problem.args[0] in _NO_SUCH:
            raise NoSuchRecord(name) from problem
        raise DnsUnavailable(name) from problem
    except TimeoutError as problem:
        raise DnsUnavailable(name) from problem
