"""Every call to a peer goes where the specification says, and every answer is read strictly."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.federation import multipart
from appliance.federation.client import Client
from appliance.federation.requests import credentials, verify
from appliance.federation.wire import Wire
from appliance.link.errors import BadAnswer, PeerError, RefusedByPeer, Unreachable
from appliance.link.exchange import Answer, Ask, Streamed
from appliance.matrix import canonical
from appliance.matrix.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from appliance.matrix.signing import generate

HOME, PEER = ServerName("home.example"), ServerName("a.example")
KEY = generate("1", b"k" * 32)
ROOM, EVENT = RoomId("!r%/?:a.example"), EventId("$e/+_-")
ME, ALICE, ALIAS = UserId("@me:home.example"), UserId("@ali ce:a.example"), RoomAlias("#ö/x:a.example")
PDU: dict[str, Any] = {"type": "m.room.message", "content": {}}


class Line:
    """A transport that gives the answer it was told to."""

    def __init__(self, body: object = None, status: int = 200, **headers: str) -> None:
        self.body = body if isinstance(body, bytes) else canonical.dumps(body if body is not None else {})
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.asked: list[Ask] = []

    async def request(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        return Answer(self.status, self.headers, self.body)

    @asynccontextmanager
    async def stream(self, ask: Ask) -> AsyncIterator[Streamed]:
        self.asked.append(ask)

        async def chunks() -> AsyncIterator[bytes]:
            yield self.body

        yield Streamed(self.status, self.headers, chunks())


def client(line: Line) -> Client:
    return Client(Wire(HOME, KEY, line))


def template(**changes: Any) -> dict[str, Any]:
    content = {"membership": changes.pop("membership", "join")}
    event = {"room_id": ROOM, "sender": ME, "state_key": ME, "type": "m.room.member", "content": content, **changes}
    return {"event": event, "room_version": "11"}


async def _download(c: Client) -> bytes:
    async with multipart.download(c.wire, PEER, "m/1", wait_ms=5000, most_bytes=100) as media:
        return b"".join([chunk async for chunk in media.chunks])


async def _thumbnail(c: Client) -> bytes:
    size = (64, 48)
    async with multipart.thumbnail(
        c.wire, PEER, "m", size, method="crop", animated=True, wait_ms=1, most_bytes=100
    ) as m:
        return b"".join([chunk async for chunk in m.chunks])


MEDIA = b'--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: image/png\r\n\r\nPNG\r\n--b--\r\n'
DEVICE = {"device_id": "D", "keys": {}}
Call = Callable[[Client], Awaitable[Any]]
CALLS: list[tuple[str, str, str, Call, object]] = [
    ("version", "GET", "/version", lambda c: c.version(PEER), {"server": {"name": "X"}}),
    ("keys_server", "GET", "/server", lambda c: c.key_object(PEER), {}),
    ("keys_query", "POST", "/query", lambda c: c.ask_notary(PEER, {HOME: {"ed25519:1": 5}}), {"server_keys": [{}]}),
    ("keys_query", "GET", "/query/{}", lambda c: c.ask_notary_for(PEER, HOME, 5), {"server_keys": []}),
    ("openid", "GET", "/openid/userinfo", lambda c: c.openid_user(PEER, "t"), {"sub": "@u:a.example"}),
    ("transactions", "PUT", "/send/{}", lambda c: c.send(PEER, "t", 1, [PDU], []), {"pdus": {"$e": {"error": "no"}}}),
    ("joins-v1", "GET", "/make_join/{}/{}", lambda c: c.make_join(PEER, ROOM, ME, ["11", "10"]), template()),
    ("joins-v2", "PUT", "/send_join/{}/{}", lambda c: c.send_join(PEER, ROOM, EVENT, PDU, omit_members=True),
     {"state": [PDU], "auth_chain": [], "members_omitted": True, "servers_in_room": ["a.example"]}),
    ("leaving-v1", "GET", "/make_leave/{}/{}", lambda c: c.make_leave(PEER, ROOM, ME, ["11"]),
     template(membership="leave")),
    ("leaving-v2", "PUT", "/send_leave/{}/{}", lambda c: c.send_leave(PEER, ROOM, EVENT, PDU), {}),
    ("knocks", "GET", "/make_knock/{}/{}", lambda c: c.make_knock(PEER, ROOM, ME, ["11"]),
     template(membership="knock")),
    ("knocks", "PUT", "/send_knock/{}/{}", lambda c: c.send_knock(PEER, ROOM, EVENT, PDU), {"knock_room_state": [PDU]}),
    ("invites-v2", "PUT", "/invite/{}/{}", lambda c: c.invite(PEER, ROOM, EVENT, "11", PDU, []), {"event": PDU}),
    ("events", "GET", "/event/{}", lambda c: c.event(PEER, EVENT), {"pdus": [PDU]}),
    ("event_auth", "GET", "/event_auth/{}/{}", lambda c: c.event_auth(PEER, ROOM, EVENT), {"auth_chain": [PDU]}),
    ("events", "GET", "/state/{}", lambda c: c.state(PEER, ROOM, EVENT), {"pdus": [], "auth_chain": []}),
    ("events", "GET", "/state_ids/{}", lambda c: c.state_ids(PEER, ROOM, EVENT),
     {"pdu_ids": ["$a"], "auth_chain_ids": []}),
    ("backfill", "GET", "/backfill/{}", lambda c: c.backfill(PEER, ROOM, [EVENT, EventId("$f")], 2), {"pdus": [PDU]}),
    ("backfill", "POST", "/get_missing_events/{}", lambda c: c.missing_events(PEER, ROOM, [EVENT], [EVENT], 3),
     {"events": [PDU]}),
    ("events", "GET", "/timestamp_to_event/{}", lambda c: c.event_at(PEER, ROOM, 7, "f"),
     {"event_id": "$e", "origin_server_ts": 8}),
    ("query", "GET", "/query/profile", lambda c: c.profile(PEER, ALICE, "displayname"), {"displayname": "A"}),
    ("query", "GET", "/query/directory", lambda c: c.directory(PEER, ALIAS),
     {"room_id": "!r:a.example", "servers": ["a.example"]}),
    ("user_keys", "POST", "/user/keys/query", lambda c: c.user_keys(PEER, {ALICE: []}),
     {"device_keys": {ALICE: {"D": {}}}, "master_keys": {ALICE: {}}}),
    ("user_keys", "POST", "/user/keys/claim", lambda c: c.claim_keys(PEER, {ALICE: {"D": "signed_curve25519"}}),
     {"one_time_keys": {ALICE: {"D": {"signed_curve25519:A": {"key": "x"}}}}}),
    ("user_devices", "GET", "/user/devices/{}", lambda c: c.devices(PEER, ALICE),
     {"user_id": ALICE, "stream_id": 5, "devices": [DEVICE]}),
    ("public_rooms", "GET", "/publicRooms", lambda c: c.public_rooms(PEER, limit=5, since="s"), {"chunk": []}),
    ("public_rooms", "POST", "/publicRooms", lambda c: c.public_rooms(PEER, limit=5, wanted={}), {"chunk": [{}]}),
    ("space_hierarchy", "GET", "/hierarchy/{}", lambda c: c.hierarchy(PEER, ROOM), {"room": {}, "children": []}),
    ("content_repository", "GET", "/media/download/{}", _download, MEDIA),
    ("content_repository", "GET", "/media/thumbnail/{}", _thumbnail, MEDIA),
]  # fmt: skip
OPEN = {"/version", "/server", "/query", "/query/{}", "/openid/userinfo"}
NAMES = [f"{method} {where}" for _, method, where, _, _ in CALLS]


def line(body: object) -> Line:
    return Line(body, Content_Type='multipart/mixed; boundary="b"')


@pytest.mark.parametrize(("file", "method", "where", "call", "body"), CALLS, ids=NAMES)
async def test_each_call_is_one_of_the_specification(
    spec_data: Path, file: str, method: str, where: str, call: Call, body: object
) -> None:
    wire = line(body)
    await call(client(wire))
    (ask,) = wire.asked
    document = yaml.safe_load((spec_data / "matrix/api/server-server" / f"{file}.yaml").read_text())
    base = document["servers"][0]["variables"]["basePath"]["default"]
    names = {re.sub(r"\{[^}]+\}", "{}", name): operations for name, operations in document["paths"].items()}
    operation = names[where][method.lower()]
    pattern = "([^/]+)".join(re.escape(part) for part in (base + where).split("{}"))
    path, _, query = ask.target.partition("?")
    assert ask.method == method and re.fullmatch(pattern, path)
    parameters = [p if "$ref" not in p else {"name": p["$ref"].split("/")[-1]} for p in operation.get("parameters", ())]
    known = {p["name"] for p in parameters}
    assert {pair.partition("=")[0] for pair in query.split("&") if pair} <= known
    assert {p["name"] for p in parameters if p.get("in") == "query" and p.get("required")} <= {
        pair.partition("=")[0] for pair in query.split("&")
    }
    assert (ask.body is not None) == (method != "GET")
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if ask.body is not None and "send_" not in where and "required" in schema:
        assert set(schema["required"]) <= canonical.decode_object(ask.body).keys()


@pytest.mark.parametrize(("file", "method", "where", "call", "body"), CALLS, ids=NAMES)
async def test_each_call_is_signed_over_what_is_sent(
    file: str, method: str, where: str, call: Call, body: object
) -> None:
    wire = line(body)
    await call(client(wire))
    (ask,) = wire.asked
    if where in OPEN:
        assert "Authorization" not in ask.headers
        return
    claim = credentials([ask.headers["Authorization"]], PEER)
    assert claim.origin == HOME and claim.destination == PEER
    verify(claim, ask.method, ask.target, ask.body, {KEY.key_id: KEY.verify_key})
    assert "send_" in where or ask.body is None or canonical.encode(canonical.decode(ask.body)) == ask.body


NONSENSE: list[object] = [b"", b"<html>", b"[]", b"7", b"[" * 5000, {"pdus": 7}, {"state": [1], "auth_chain": [1]},
                          {"chunk": {}}, {"event": []}, {"server_keys": {}}, b"--b"]  # fmt: skip
FORGIVING = {"/version", "/server", "/query/profile", "/send_leave/{}/{}"}  # any object will do, the caller looks


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
@pytest.mark.parametrize(("file", "method", "where", "call", "good"), CALLS, ids=NAMES)
async def test_nonsense_is_a_bad_answer_and_nothing_worse(
    file: str, method: str, where: str, call: Call, good: object, body: object
) -> None:
    forgiven = where in FORGIVING | {"/send/{}"} and isinstance(body, dict)
    try:
        await call(client(line(body)))
    except BadAnswer:
        return
    assert forgiven


@pytest.mark.parametrize(("file", "method", "where", "call", "good"), CALLS, ids=NAMES)
async def test_the_status_says_what_it_means(file: str, method: str, where: str, call: Call, good: object) -> None:
    for status, kind in ((500, Unreachable), (502, Unreachable), (404, RefusedByPeer), (302, Unreachable),
                         (201, Unreachable), (100, Unreachable), (401, RefusedByPeer)):  # fmt: skip
        with pytest.raises(PeerError) as raised:
            await call(client(Line({"errcode": "M_NOPE", "error": "our own words"}, status)))
        assert type(raised.value) is kind and "our own words" not in str(raised.value)


async def test_what_a_refusal_carries() -> None:
    body = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "room_version": "org.example.99", "error": "x"}
    with pytest.raises(RefusedByPeer) as refused:
        await client(Line(body, 400)).make_join(PEER, ROOM, ME, ["11"])
    assert (refused.value.errcode, refused.value.room_version) == ("M_INCOMPATIBLE_ROOM_VERSION", "org.example.99")
    stranger: tuple[object, ...] = ({"errcode": "<b>", "room_version": "\n" * 5}, {"errcode": ["M_X"]}, [], b"\xff")
    for strange in stranger:
        with pytest.raises(RefusedByPeer) as refused:
            await client(Line(strange, 403)).version(PEER)
        assert (refused.value.status, refused.value.errcode, refused.value.room_version) == (403, "M_UNKNOWN", None)


@pytest.mark.parametrize(
    ("headers", "body", "pause"),
    [
        ({"Retry_After": "7"}, {"retry_after_ms": 9}, 7000), ({}, {"retry_after_ms": 1500}, 1500), ({}, {}, None),
        ({"Retry_After": "99999999"}, {}, 86_400_000), ({}, {"retry_after_ms": 10**15}, 86_400_000),
        ({"Retry_After": "soon"}, {"retry_after_ms": -1}, None), ({}, {"retry_after_ms": "9"}, None),
    ],
)  # fmt: skip
async def test_a_busy_peer_says_when(headers: dict[str, str], body: dict[str, Any], pause: int | None) -> None:
    with pytest.raises(Unreachable) as busy:
        await client(Line(body, 429, **headers)).version(PEER)
    assert busy.value.retry_after_ms == pause


@pytest.mark.parametrize(
    "changes",
    [
        {"room_id": "!other:a.example"}, {"sender": "@you:home.example"}, {"state_key": "@you:home.example"},
        {"type": "m.room.power_levels"}, {"membership": "ban"}, {"content": []}, {"content": None}, {"state_key": None},
    ],
)  # fmt: skip
async def test_a_template_for_something_else_is_never_signed(changes: Mapping[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="something else"):
        await client(Line(template(**changes))).make_join(PEER, ROOM, ME, ["11"])


async def test_a_template_of_a_version_that_was_not_offered_is_refused() -> None:
    for body in ({**template(), "room_version": "12"}, {"event": template()["event"]}):
        with pytest.raises(BadAnswer, match="not offered"):
            await client(Line(body)).make_join(PEER, ROOM, ME, ["11"])


async def test_more_or_others_than_asked_for_is_refused() -> None:
    bob = "@bob:b.example"
    cases: list[tuple[object, Call]] = [
        ({"pdus": [PDU] * 3}, lambda c: c.backfill(PEER, ROOM, [EVENT], 2)),
        ({"events": [PDU] * 3}, lambda c: c.missing_events(PEER, ROOM, [], [EVENT], 2)),
        ({"pdus": [PDU] * 2}, lambda c: c.event(PEER, EVENT)), ({"pdus": []}, lambda c: c.event(PEER, EVENT)),
        ({"device_keys": {bob: {}}}, lambda c: c.user_keys(PEER, {ALICE: []})),
        ({"device_keys": {}, "master_keys": {bob: {}}}, lambda c: c.user_keys(PEER, {ALICE: []})),
        ({"one_time_keys": {bob: {}}}, lambda c: c.claim_keys(PEER, {ALICE: {"D": "a"}})),
        ({"one_time_keys": {ALICE: {"E": {}}}}, lambda c: c.claim_keys(PEER, {ALICE: {"D": "a"}})),
        ({"user_id": bob, "stream_id": 1, "devices": []}, lambda c: c.devices(PEER, ALICE)),
        ({"user_id": ALICE, "stream_id": 2**60, "devices": []}, lambda c: c.devices(PEER, ALICE)),
        ({"sub": bob}, lambda c: c.openid_user(PEER, "t")), ({"sub": "x"}, lambda c: c.openid_user(PEER, "t")),
        ({"room_id": "x", "servers": []}, lambda c: c.directory(PEER, ALIAS)),
        ({"room_id": ROOM, "servers": ["x" * 300]}, lambda c: c.directory(PEER, ALIAS)),
        ({"pdus": {f"${n}": {} for n in range(51)}}, lambda c: c.send(PEER, "t", 1, [])),
        ({"state": [], "auth_chain": [], "members_omitted": True, "servers_in_room": ["a.example"]},
         lambda c: c.send_join(PEER, ROOM, EVENT, PDU)),
        ({"state": [], "auth_chain": [], "members_omitted": True},
         lambda c: c.send_join(PEER, ROOM, EVENT, PDU, omit_members=True)),
    ]  # fmt: skip
    for body, call in cases:
        with pytest.raises(BadAnswer):
            await call(client(Line(body)))


async def test_nobody_calls_himself() -> None:
    line_ = Line()
    with pytest.raises(Unreachable, match="itself"):
        await client(line_).version(HOME)
    assert line_.asked == []
