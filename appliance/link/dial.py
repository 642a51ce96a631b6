"""Sockets and TLS towards peers: one pool of connections per endpoint and certificate name, no address unchecked.

Every address passes the policy twice: after the name was looked up, so that a forbidden one among good ones is
skipped, and again in the moment the socket is made for it, which nothing can slip past. The pool's key holds the name
that the certificate was checked for: two servers at one address never share a connection.
"""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Final

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from appliance.link.addresses import AddressPolicy
from appliance.link.dns import DnsUnavailable, NoSuchRecord
from appliance.link.resolve import Remembered

CONNECT_SECONDS: Final = 10.0
"""For one address: the TCP connection and the TLS handshake together."""
KEEPALIVE_SECONDS: Final = 60.0
PER_ENDPOINT: Final = 8
ALTOGETHER: Final = 512
HEAD_LINE_BYTES: Final = 8 * 1024
MOST_ADDRESSES: Final = 4
"""Addresses of one host that are tried."""


def tls_context(extra_authorities: Path | None = None) -> ssl.SSLContext:
    """Return what certificates are checked against: the system's authorities, and those of a PEM file beside them."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_authorities is not None:
        context.load_verify_locations(extra_authorities)
    return context


def session(names: Remembered, policy: AddressPolicy, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Open a session for peers: no cookies, no proxies, no decompression, no time limits but for connecting.

    The caller sets the limits of each request and closes the session.
    """
    guard = _Guard(policy)
    connector = aiohttp.TCPConnector(
        resolver=_Lookup(names, policy), use_dns_cache=False, ssl=tls, limit=ALTOGETHER, limit_per_host=PER_ENDPOINT,
        keepalive_timeout=KEEPALIVE_SECONDS, socket_factory=guard.socket,
    )
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        skip_auto_headers=("User-Agent", "Accept-Encoding"), headers={"Accept-Encoding": "identity"},
        max_line_size=HEAD_LINE_BYTES, max_field_size=HEAD_LINE_BYTES,
    )


class ForbiddenAddress(OSError):
    """The policy does not permit the address."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"connections to {address} are not permitted")


class _Guard:
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    def socket(self, info: AddrInfoType) -> socket.socket:
        """Make the socket for an address, unless the policy forbids it."""
        family, kind, protocol, _, address = info
        if not self._policy.permits(str(address[0])):
            raise ForbiddenAddress(str(address[0]))
        return socket.socket(family, kind, protocol)


class _Lookup(AbstractResolver):
    """Gives aiohttp the addresses of a host, forbidden ones left out."""

    def __init__(self, names: Remembered, policy: AddressPolicy) -> None:
        self._names = names
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            found = (await self._names.addresses(host)).found
        except NoSuchRecord as error:
            raise OSError(errno.ENXIO, "the name has no address") from error
        except DnsUnavailable as error:
            raise OSError(errno.EAGAIN, "the domain name system did not answer") from error
        good = [address for address in found if self._policy.permits(address)][:MOST_ADDRESSES]
        if not good:
            raise ForbiddenAddress(found[0])
        return [_result(host, address, port) for address in good]

    async def close(self) -> None:
        """Leave the memory to its owner."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
