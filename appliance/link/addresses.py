"""Which addresses may be connected to on behalf of a stranger's server name.

Server names arrive from outside, in ids and transactions. Whoever owns a domain decides what it resolves to; without
this policy the house could be made to knock at machines of the hospital's own network. The decision is made on the
address of the socket itself (see `dial.py`), so a name that changes its mind after it was looked up gains nothing.

Source: IANA special-purpose address registries for IPv4 and IPv6; RFC 6890.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

_SPECIAL: Final = (
    *LOOPBACK,
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7",
    "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Networks that are forbidden, and those that are allowed all the same."""

    forbidden: tuple[Network, ...]
    allowed: tuple[Network, ...] = ()

    def permits(self, text: str) -> bool:
        """Tell whether the address may be connected to; text that is no address may not."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if _within(address, self.allowed):
            return True
        return all(not _within(face, self.forbidden) or _within(face, self.allowed) for face in _faces(address))


def policy(allowed: Iterable[str] = ()) -> AddressPolicy:
    """Return the policy that forbids everything special except the `allowed` networks (`ValueError` for nonsense)."""
    return AddressPolicy(
        tuple(ipaddress.ip_network(text) for text in _SPECIAL), tuple(ipaddress.ip_network(text) for text in allowed)
    )


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _faces(address: Address) -> list[Address]:
    """Return the address, or where it would end up if it is an IPv4 address in the clothes of IPv6."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    inner = address.ipv4_mapped
    if inner is not None:
        return [inner]
    faces: list[Address] = [address]
    if address.sixtofour is not None:
        faces.append(address.sixtofour)
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
        faces.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return faces
