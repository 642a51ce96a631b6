"""Events and positions as clients see them."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import client_event, tokens, versions
from appliance.matrix.errors import InvalidParam
from appliance.matrix.event import parse
from tests.matrix.room import ALICE, make


def test_clients_see_no_machinery() -> None:
    event = make(versions.get("11"), "m.room.topic", ALICE, {"topic": "x"}, "")
    shown = client_event.render(event, room_id=True, unsigned={"age": 1})
    assert set(shown) == {
        "content", "event_id", "origin_server_ts", "room_id", "sender", "state_key", "type", "unsigned"
    }  # fmt: skip
    assert "room_id" not in client_event.render(event, room_id=False)
    assert client_event.stripped(event) == {
        "content": {"topic": "x"}, "sender": ALICE, "state_key": "", "type": "m.room.topic"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["10", "11"])
def test_redactions_name_their_target_in_both_places(name: str) -> None:
    version = versions.get(name)
    made = make(version, "m.room.redaction", ALICE, {"redacts": "$x"} if name == "11" else {})
    event = made if name == "11" else parse({**made.pdu, "redacts": "$x"}, version)
    shown = client_event.render(event, room_id=False)
    assert shown["redacts"] == shown["content"]["redacts"] == "$x"


@pytest.mark.parametrize(("now", "age"), [(1500, 500), (500, 0)])
def test_encoded_events_are_closed_per_reader(now: int, age: int) -> None:
    event = make(versions.get("11"), "m.room.message", ALICE, {"body": 'quote " and ü'}, ts=1000)
    encoded = client_event.Encoded(event)
    plain = json.loads(orjson.dumps([encoded.fragment(now), encoded.fragment(now, b'"transaction_id":"t"')]))
    expected = client_event.render(event, room_id=False)
    assert plain == [
        {**expected, "unsigned": {"age": age}},
        {**expected, "unsigned": {"age": age, "transaction_id": "t"}},
    ]


@given(st.integers(0, 10**17), st.integers(0, 10**17), st.integers(0, 10**17))
def test_sync_tokens_come_back(stream: int, ephemeral: int, letters: int) -> None:
    token = tokens.StreamToken(stream, ephemeral, letters)
    assert tokens.stream_token(str(token)) == token
    assert tokens.stream_token(f"s{stream}_{ephemeral}") == tokens.StreamToken(stream, ephemeral)
    assert tokens.timeline_point(str(token)) == stream


@given(st.integers(-(10**17), 10**17))
def test_timeline_tokens_come_back(pos: int) -> None:
    assert tokens.timeline_point(tokens.timeline_token(pos)) == pos


@pytest.mark.parametrize(
    "text", ["", "s", "s1", "t", "t1_2", "s-1_2", "s1_2 ", "x1", "s" + "9" * 30 + "_1", "t٣", "s1_2_3_4"]
)
def test_foreign_tokens(text: str) -> None:
    for parse_it in (tokens.stream_token, tokens.timeline_point):
        with pytest.raises(InvalidParam):
            parse_it(text)
