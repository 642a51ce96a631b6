"""The checker itself: right answers pass, wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.openapi import Specification, events_in


@pytest.fixture(scope="module")
def specification(spec_data: Path) -> Specification:
    return Specification(spec_data)


def faults(specification: Specification, method: str, path: str, status: int, body: object) -> list[str]:
    found = specification.find(method, path)
    assert found, path
    return specification.answer_faults(found[1], status, "application/json", body)


def test_literal_paths_win_over_placeholders(specification: Specification) -> None:
    found = specification.find("GET", "/_matrix/client/v3/profile/%40a%3Ab/displayname")
    assert found and found[0] == "GET /_matrix/client/v3/profile/{userId}/{keyName}"
    found = specification.find("GET", "/_matrix/client/v3/pushrules/global/")
    assert found and found[0] == "GET /_matrix/client/v3/pushrules/global/"
    assert specification.find("GET", "/_matrix/client/v3/nothing") is None


def test_a_wrong_answer_is_named(specification: Specification) -> None:
    whoami = "/_matrix/client/v3/account/whoami"
    assert faults(specification, "GET", whoami, 200, {"user_id": "@a:b", "device_id": "X"}) == []
    assert faults(specification, "GET", whoami, 200, {}) == [": 'user_id' is a required property"]
    assert "user_id: 'a' is not a 'mx-user-id'" in faults(specification, "GET", whoami, 200, {"user_id": "a"})
    assert "no errcode" in faults(specification, "GET", whoami, 403, {"error": "x"})


def test_events_inside_answers_are_checked_by_their_type(specification: Specification) -> None:
    path = "/_matrix/client/v3/rooms/%21a%3Ab/state/m.room.member/x"
    member = {"type": "m.room.member", "content": {"membership": "sleeping"}}
    assert list(events_in({"a": [{"b": member}]})) == [member]
    assert "m.room.member: membership" in faults(specification, "GET", path, 200, member)[0]
    assert faults(specification, "GET", path, 200, {**member, "content": {"membership": "join"}}) == []
