"""Before anything else: may this server speak in this room at all? The room's own list of servers says.

Source: client-server API, `m.room.server_acl`; server-server API, "Server Access Control Lists (ACLs)".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

MOST_RULES: Final = 10_000


def allowed(content: Mapping[str, Any], server: str) -> bool:
    """Tell whether the `content` of a server ACL event lets a server take part."""
    host = _host(server)
    if content.get("allow_ip_literals") is False and _is_ip(host):
        return False
    if _matches(content.get("deny"), host):
        return False
    return _matches(content.get("allow"), host)


def _host(server: str) -> str:
    return re.sub(r":[0-9]{1,5}$", "", server).lower()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _matches(globs: object, host: str) -> bool:
    if not isinstance(globs, list):
        return False
    return any(_fits(glob.lower(), host) for glob in globs[:MOST_RULES] if isinstance(glob, str))


def _fits(glob: str, host: str) -> bool:
    """Match `*` and `?` without going back further than the last star: linear in practice, quadratic at worst."""
    g = h = 0
    star, mark = -1, 0
    while h < len(host):
        if g < len(glob) and glob[g] != "*" and glob[g] in ("?", host[h]):
            g, h = g + 1, h + 1
        elif g < len(glob) and glob[g] == "*":
            star, mark, g = g, h, g + 1
        elif star >= 0:
            mark += 1
            g, h = star + 1, mark
        else:
            return False
    return glob[g:].strip("*") == ""
