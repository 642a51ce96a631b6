"""Requests that are right, and the many ways to make one of their values wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**53,
    2**70,
    1.5,
    "",
    "x",
    "\x00",
    "\U0001f4a9" * 300,
    [],
    {},
    [[]],
    {"a": {}},
)
BROKEN_JSON = {
    "cut off": b'{"a": ',
    "no JSON": b"hello",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "control character": b'{"a": "\x01"}',
    "two values": b"{}{}",
    "single quotes": b"{'a': 1}",
    "deep lists": b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "open lists": b"[" * 100_000,
}
NOT_AN_OBJECT = {
    "list": b"[]",
    "null": b"null",
    "string": b'"x"',
    "number": b"1",
    "true": b"true",
    "list of objects": b"[{}]",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request that works, as method, path and JSON body; `{...}` in the path are filled with real names."""

    method: str
    path: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


CONTENT = {"msgtype": "m.text", "body": "hello", "m.relates_to": {"rel_type": "m.thread", "event_id": "$x"}}
KEY = {"key": "A" * 43, "signatures": {"@a:b": {"ed25519:X": "A" * 86}}}
SESSION = {"first_message_index": 1, "forwarded_count": 0, "is_verified": True, "session_data": {"ciphertext": "x"}}
DEVICE = {
    "user_id": "{user}",
    "device_id": "{device}",
    "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
    "keys": {"ed25519:{device}": "A" * 43, "curve25519:{device}": "A" * 43},
    "signatures": {"{user}": {"ed25519:{device}": "A" * 86}},
}
CROSS = {
    "user_id": "{user}",
    "usage": ["master"],
    "keys": {"ed25519:abc": "abc"},
    "signatures": {"{user}": {"ed25519:x": "y"}},
}
CREATE = {
    "visibility": "private",
    "preset": "private_chat",
    "room_alias_name": "one-alias",
    "name": "n",
    "topic": "t",
    "invite": ["@x:y"],
    "room_version": "11",
    "creation_content": {"m.federate": False},
    "initial_state": [{"type": "m.room.x", "state_key": "", "content": {"a": 1}}],
    "is_direct": True,
    "power_level_content_override": {"users_default": 1, "users": {"@a:b": 1}, "events": {"m.x": 1}},
}
FILTER = {
    "room": {
        "timeline": {
            "limit": 3,
            "types": ["m.*"],
            "not_senders": ["@a:b"],
            "lazy_load_members": True,
            "contains_url": True,
        },
        "rooms": ["!a:b"],
        "include_leave": True,
    },
    "presence": {"types": ["m.presence"]},
    "event_fields": ["content.body"],
    "event_format": "client",
}
SEARCH = {
    "search_categories": {
        "room_events": {
            "search_term": "x",
            "keys": ["content.body"],
            "filter": {"limit": 3},
            "order_by": "rank",
            "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
            "include_state": True,
            "groupings": {"group_by": [{"key": "room_id"}]},
        }
    }
}
SLIDING = {
    "conn_id": "c",
    "lists": {
        "a": {"ranges": [[0, 9]], "timeline_limit": 3, "required_state": [["*", "*"]], "filters": {"is_dm": True}}
    },
    "room_subscriptions": {"{room}": {"timeline_limit": 3, "required_state": [["m.room.name", ""]]}},
    "extensions": {
        "to_device": {"enabled": True, "since": "1", "limit": 10},
        "receipts": {"enabled": True, "rooms": ["*"]},
    },
}
PUSHER = {
    "kind": "http",
    "app_id": "a",
    "pushkey": "k",
    "app_display_name": "x",
    "device_display_name": "y",
    "lang": "de",
    "data": {"url": "https://push.invalid/_matrix/push/v1/notify", "format": "event_id_only"},
    "append": False,
}
CONDITIONS = [
    {"kind": "event_match", "key": "content.body", "pattern": "x*"},
    {"kind": "room_member_count", "is": "2"},
    {"kind": "event_property_is", "key": "type", "value": "x"},
]

REQUESTS = (
    Request("POST", "/v3/createRoom", CREATE),
    Request("PUT", "/v3/rooms/{room}/send/m.room.message/{txn}", CONTENT),
    Request("PUT", "/v3/rooms/{room}/state/m.room.topic/", {"topic": "x"}),
    Request(
        "PUT",
        "/v3/rooms/{room}/state/m.room.power_levels/",
        {"users": {"{user}": 100}, "events": {"m.x": 50}, "ban": 50},
    ),
    Request("PUT", "/v3/rooms/{room}/state/m.room.canonical_alias/", {"alias": "#a:b", "alt_aliases": ["#c:d"]}),
    Request(
        "PUT",
        "/v3/rooms/{room}/state/m.room.join_rules/",
        {"join_rule": "restricted", "allow": [{"type": "x", "room_id": "!a:b"}]},
    ),
    Request("PUT", "/v3/rooms/{room}/state/m.room.member/{user}", {"membership": "join", "displayname": "x"}),
    Request("PUT", "/v3/rooms/{room}/redact/{event}/{txn}", {"reason": "x"}),
    Request("POST", "/v3/rooms/{room}/invite", {"user_id": "@x:y", "reason": "x"}),
    Request("POST", "/v3/rooms/{room}/ban", {"user_id": "@x:y", "reason": "x"}),
    Request("POST", "/v3/rooms/{room}/receipt/m.read/{event}", {"thread_id": "main"}),
    Request("POST", "/v3/rooms/{room}/read_markers", {"m.fully_read": "{event}", "m.read": "{event}"}),
    Request("PUT", "/v3/rooms/{room}/typing/{user}", {"typing": True, "timeout": 1000}),
    Request("POST", "/v3/rooms/{room}/report/{event}", {"reason": "x", "score": -1}),
    Request("POST", "/v3/rooms/{room}/upgrade", {"new_version": "no-such"}),
    Request(
        "POST",
        "/v3/join/{room}",
        {"reason": "x", "third_party_signed": {"sender": "@a:b", "mxid": "@a:b", "token": "x"}},
    ),
    Request(
        "POST",
        "/v3/publicRooms",
        {"limit": 3, "since": "x", "filter": {"generic_search_term": "x", "room_types": ["m.space"]}},
    ),
    Request("POST", "/v3/search", SEARCH),
    Request("POST", "/v3/user_directory/search", {"search_term": "x", "limit": 3}),
    Request("POST", "/v3/user/{user}/filter", FILTER),
    Request("PUT", "/v3/user/{user}/account_data/m.x", {"a": 1}),
    Request("PUT", "/v3/user/{user}/account_data/m.ignored_user_list", {"ignored_users": {"@x:y": {}}}),
    Request("PUT", "/v3/user/{user}/account_data/m.direct", {"@x:y": ["!a:b"]}),
    Request("PUT", "/v3/user/{user}/rooms/{room}/tags/u.x", {"order": 0.5}),
    Request("PUT", "/v3/profile/{user}/displayname", {"displayname": "x"}),
    Request("PUT", "/v3/profile/{user}/m.tz", {"m.tz": "x"}),
    Request("PUT", "/v3/presence/{user}/status", {"presence": "online", "status_msg": "x"}),
    Request("PUT", "/v3/devices/{device}", {"display_name": "x"}),
    Request("POST", "/v3/delete_devices", {"devices": ["X"], "auth": {"type": "m.login.password", "session": "x"}}),
    Request("POST", "/v3/keys/upload", {"device_keys": DEVICE, "one_time_keys": {"signed_curve25519:A": KEY}}),
    Request("POST", "/v3/keys/upload", {"fallback_keys": {"signed_curve25519:F": {**KEY, "fallback": True}}}),
    Request("POST", "/v3/keys/query", {"device_keys": {"{user}": ["{device}"]}, "timeout": 10}),
    Request("POST", "/v3/keys/claim", {"one_time_keys": {"{user}": {"{device}": "signed_curve25519"}}, "timeout": 10}),
    Request("POST", "/v3/keys/device_signing/upload", {"master_key": CROSS, "self_signing_key": CROSS}),
    Request("POST", "/v3/keys/signatures/upload", {"{user}": {"{device}": DEVICE}}),
    Request("PUT", "/v3/sendToDevice/m.x/{txn}", {"messages": {"{user}": {"*": {"a": 1}}}}),
    Request("POST", "/v3/room_keys/version", {"algorithm": "m.x", "auth_data": {"public_key": "x"}}),
    Request("PUT", "/v3/room_keys/keys?version={version}", {"rooms": {"!a:b": {"sessions": {"s": SESSION}}}}),
    Request("PUT", "/v3/room_keys/keys/{room}/s?version={version}", SESSION),
    Request(
        "PUT",
        "/v3/pushrules/global/override/x",
        {"actions": ["notify", {"set_tweak": "sound", "value": "x"}], "conditions": CONDITIONS},
    ),
    Request("PUT", "/v3/pushrules/global/content/x", {"actions": [], "pattern": "x"}),
    Request("POST", "/v3/pushers/set", PUSHER),
    Request("POST", "/unstable/org.matrix.simplified_msc3575/sync?timeout=0", SLIDING),
    Request(
        "POST",
        "/v3/login",
        {"type": "m.login.token", "token": "x", "device_id": "D", "identifier": {"type": "m.id.user", "user": "x"}},
    ),
    Request(
        "POST",
        "/v3/register",
        {"username": "UPPER no", "password": "x", "auth": {"type": "m.login.dummy", "session": "x"}},
    ),
    Request("POST", "/v3/refresh", {"refresh_token": "x"}),
    Request("POST", "/v3/account/password", {"new_password": "x", "logout_devices": False}),
)


def filled(value: Any, names: dict[str, str]) -> Any:
    """Return the value with every `{name}` in its texts, keys included, replaced."""
    if isinstance(value, str):
        for name, real in names.items():
            value = value.replace("{" + name + "}", real)
        return value
    if isinstance(value, list):
        return [filled(part, names) for part in value]
    if isinstance(value, dict):
        return {filled(key, names): filled(part, names) for key, part in value.items()}
    return value


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside, the containers included."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*at, key)
        yield from places(part, (*at, key))


def spoiled(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the body once for each place and each wrong value, and once without each place."""
    for place in places(body):
        for wrong in WRONG_VALUES:
            changed = copy.deepcopy(body)
            _inside(changed, place)[place[-1]] = wrong
            yield changed
        changed = copy.deepcopy(body)
        del _inside(changed, place)[place[-1]]
        yield changed


def _inside(body: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        body = body[key]
    return body
