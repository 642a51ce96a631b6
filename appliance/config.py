"""What this house is told from outside: names, places, and the profile whose values the rules read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.matrix.ids import ServerName
from appliance.matrix.versions import KNOWN


class Profile(msgspec.Struct, frozen=True):
    """A set of rules as values; the code asks for a value, never for the profile's name.

    `creatable_versions` and `default_version` are room versions; `public_rooms` says whether a room may be in the
    public directory; `presence` whether the house tells who is online; `legacy_media` whether media can be fetched
    without a token (the routes that Matrix 1.11 deprecates); `laboratory_registration` whether the shared-secret and
    open registrations of laboratories may be switched on; `content_free_push` whether push gateways get event ids only,
    whatever a client asks for; `minimum_password` is the least number of characters of a password.
    """

    name: str
    creatable_versions: tuple[str, ...]
    default_version: str
    public_rooms: bool
    presence: bool
    legacy_media: bool
    laboratory_registration: bool
    content_free_push: bool
    minimum_password: int


PROFILES: Final = MappingProxyType(
    {
        "tim-pro": Profile(
            name="tim-pro",
            creatable_versions=("9", "10", "11", "12"),
            default_version="11",
            public_rooms=True,
            presence=False,
            legacy_media=False,
            laboratory_registration=False,
            content_free_push=True,
            minimum_password=8,
        ),
        "matrix": Profile(
            name="matrix",
            creatable_versions=tuple(name for name in KNOWN if int(name) >= 9),
            default_version="11",
            public_rooms=True,
            presence=True,
            legacy_media=True,
            laboratory_registration=True,
            content_free_push=False,
            minimum_password=1,
        ),
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """Everything the composition root needs to build the house. Not printable: it holds the laboratory secret."""

    server_name: ServerName
    data: Path
    host: str
    port: int
    profile: Profile
    tls_cert: Path | None = None
    tls_key: Path | None = None
    federation_ca: Path | None = None
    open_registration: bool = False
    registration_secret: str | None = None
    rate_limits: bool = True
    direct_federation: bool = False
    upload_limit: int = 100 * 1024 * 1024
    """Largest attachment in bytes."""
    push_gateways: tuple[str, ...] = ()
    """Gateways inside the hospital: names, addresses or networks that push may reach besides public ones."""
