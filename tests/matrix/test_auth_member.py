"""Rule 4 (5 in room version 12), membership: at least one acceptance and one refusal of every rule and version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from appliance.matrix import membership, signing, versions
from appliance.matrix.auth import Key
from appliance.matrix.ids import ServerName
from tests.matrix.room import ALICE, BOB, CAROL, DAVE
from tests.matrix.rule_table import JOIN_RULES, POWER_LEVELS, Case, everywhere, judge, title

MEMBER = "m.room.member"
AUTHORISER = "join_authorised_via_users_server"


def member(user: str) -> Key:
    """Return the slot of a user's membership."""
    return (MEMBER, user)


def rule(name: str) -> dict[Key, Mapping[str, Any] | None]:
    """Return the state with a join rule."""
    return {JOIN_RULES: {"join_rule": name}}


def is_(**users: str) -> dict[Key, Mapping[str, Any] | None]:
    """Return the state with memberships of Alice, Bob, Carol or Dave."""
    named = {"alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE}
    return {member(named[user]): {"membership": value} for user, value in users.items()}


def case(
    name: str, rules: Mapping[int, str | None], sender: str, value: Any, target: str, **more: Any
) -> Case:
    """Write a membership case."""
    content = {"membership": value, **more.pop("content", {})}
    return Case(name, rules, sender, MEMBER, content, target, **more)


OK: Mapping[int, str | None] = {6: None}
BY_BOB = {AUTHORISER: BOB}
MODERATE: dict[Key, Mapping[str, Any] | None] = {
    POWER_LEVELS: {"users": {BOB: 50, CAROL: 50, DAVE: 10}, "ban": 60, "kick": 40, "invite": 40}
}

FORM = [
    Case("no state key", {6: "4.1", 12: "5.1"}, DAVE, MEMBER, {"membership": "join"}),
    Case("no membership", {6: "4.1", 12: "5.1"}, DAVE, MEMBER, {}, DAVE),
    case("unknown", {6: "4.6", 7: "4.7", 8: "4.8", 12: "5.8"}, DAVE, "lurk", DAVE),
    case("not a string", {6: "4.6", 7: "4.7", 8: "4.8", 12: "5.8"}, DAVE, 5, DAVE),
    case("null", {6: "4.6", 7: "4.7", 8: "4.8", 12: "5.8"}, DAVE, None, DAVE),
    case("knock before there was knocking", {6: "4.6", 7: None}, DAVE, "knock", DAVE, state=rule("knock")),
]
AUTHORISED = [
    case("signed", {8: None}, DAVE, "join", DAVE, content=BY_BOB, signed_by="b.example"),
    case("not signed", {6: None, 8: "4.2.1", 12: "5.2.1"}, DAVE, "join", DAVE, content=BY_BOB),
    case("no user", {6: None, 8: "4.2.1", 12: "5.2.1"}, DAVE, "join", DAVE, content={AUTHORISER: "bob"}),
    case("no string", {6: None, 8: "4.2.1", 12: "5.2.1"}, DAVE, "join", DAVE, content={AUTHORISER: 5}),
    case("any membership", {6: None, 8: "4.2.1", 12: "5.2.1"}, BOB, "leave", BOB, content={AUTHORISER: DAVE}),
]
JOIN = [
    case("creator first", OK, ALICE, "join", ALICE, prev="create", state={member(ALICE): None, **rule("invite")}),
    case("creator later", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, ALICE, "join", ALICE,
         state={member(ALICE): None, **rule("invite")}),
    case("another first", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, DAVE, "join", DAVE, prev="create",
         state=rule("invite")),
    case("additional creator first", {12: "5.3.7"}, DAVE, "join", DAVE, prev="create",
         state={("m.room.create", ""): {"additional_creators": [DAVE]}, **rule("invite")}),
    case("for another", {6: "4.2.2", 8: "4.3.2", 12: "5.3.2"}, ALICE, "join", DAVE),
    case("banned", {6: "4.2.3", 8: "4.3.3", 12: "5.3.3"}, DAVE, "join", DAVE, state=is_(dave="ban")),
    case("banned though public rule is missing", {6: "4.2.3", 8: "4.3.3", 12: "5.3.3"}, DAVE, "join", DAVE,
         state={**is_(dave="ban"), JOIN_RULES: None}),
    case("public", OK, DAVE, "join", DAVE),
    case("again", OK, BOB, "join", BOB, state=rule("invite")),
    case("invited", OK, DAVE, "join", DAVE, state={**rule("invite"), **is_(dave="invite")}),
    case("not invited", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, DAVE, "join", DAVE, state=rule("invite")),
    case("no rule is invite", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, DAVE, "join", DAVE, state={JOIN_RULES: None}),
    case("no rule, invited", OK, DAVE, "join", DAVE, state={JOIN_RULES: None, **is_(dave="invite")}),
    case("knock rule, invited", {6: "4.2.6", 7: None}, DAVE, "join", DAVE,
         state={**rule("knock"), **is_(dave="invite")}),
    case("knock rule, only knocked", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, DAVE, "join", DAVE,
         state={**rule("knock"), **is_(dave="knock")}),
    case("unknown rule", {6: "4.2.6", 8: "4.3.7", 12: "5.3.7"}, DAVE, "join", DAVE,
         state={**rule("private"), **is_(dave="invite")}),
    case("restricted, invited", {6: "4.2.6", 8: None}, DAVE, "join", DAVE,
         state={**rule("restricted"), **is_(dave="invite")}),
    case("restricted, vouched", {6: "4.2.6", 8: None}, DAVE, "join", DAVE, content=BY_BOB, signed_by="b.example",
         state=rule("restricted")),
    case("restricted, nobody vouches", {6: "4.2.6", 8: "4.3.5.2", 12: "5.3.5.2"}, DAVE, "join", DAVE,
         state=rule("restricted")),
    case("restricted, voucher gone", {6: "4.2.6", 8: "4.3.5.2", 12: "5.3.5.2"}, DAVE, "join", DAVE,
         content=BY_BOB, signed_by="b.example", state={**rule("restricted"), **is_(bob="leave")}),
    case("restricted, voucher too weak", {6: "4.2.6", 8: "4.3.5.2", 12: "5.3.5.2"}, DAVE, "join", DAVE,
         content=BY_BOB, signed_by="b.example",
         state={**rule("restricted"), POWER_LEVELS: {"users": {BOB: 50}, "invite": 51}}),
    case("knock_restricted, vouched", {6: "4.2.6", 8: "4.3.7", 10: None}, DAVE, "join", DAVE, content=BY_BOB,
         signed_by="b.example", state=rule("knock_restricted")),
    case("knock_restricted, nobody vouches", {6: "4.2.6", 8: "4.3.7", 10: "4.3.5.2", 12: "5.3.5.2"}, DAVE, "join",
         DAVE, state=rule("knock_restricted")),
]  # fmt: skip
INVITE = [
    case("by default anybody inside", OK, CAROL, "invite", DAVE),
    case("from outside", {6: "4.3.2", 8: "4.4.2", 12: "5.4.2"}, DAVE, "invite", "@new:a.example"),
    case("of a member", {6: "4.3.3", 8: "4.4.3", 12: "5.4.3"}, ALICE, "invite", BOB),
    case("of a banned", {6: "4.3.3", 8: "4.4.3", 12: "5.4.3"}, ALICE, "invite", DAVE, state=is_(dave="ban")),
    case("of a knocking", OK, CAROL, "invite", DAVE, state=is_(dave="knock")),
    case("strong enough", OK, BOB, "invite", DAVE, state=MODERATE),
    case("too weak", {6: "4.3.5", 8: "4.4.5", 12: "5.4.5"}, CAROL, "invite", DAVE,
         state={POWER_LEVELS: {"users": {}, "invite": 1}}),
]  # fmt: skip
LEAVE = [
    case("own", OK, BOB, "leave", BOB),
    case("decline", OK, DAVE, "leave", DAVE, state=is_(dave="invite")),
    case("withdraw a knock", {6: "4.4.1", 7: None}, DAVE, "leave", DAVE, state=is_(dave="knock")),
    case("never there", {6: "4.4.1", 8: "4.5.1", 12: "5.5.1"}, DAVE, "leave", DAVE),
    case("own ban", {6: "4.4.1", 8: "4.5.1", 12: "5.5.1"}, DAVE, "leave", DAVE, state=is_(dave="ban")),
    case("kick from outside", {6: "4.4.2", 8: "4.5.2", 12: "5.5.2"}, DAVE, "leave", CAROL),
    case("kick", OK, BOB, "leave", CAROL),
    case("kick by the weak", {6: "4.4.5", 8: "4.5.5", 12: "5.5.5"}, CAROL, "leave", DAVE, state=is_(dave="join")),
    case("kick of an equal", {6: "4.4.5", 8: "4.5.5", 12: "5.5.5"}, BOB, "leave", CAROL, state=MODERATE),
    case("kick of the creator", {6: "4.4.5", 8: "4.5.5", 12: "5.5.5"}, BOB, "leave", ALICE),
    case("unban", OK, ALICE, "leave", DAVE, state=is_(dave="ban")),
    case("unban with just enough", OK, BOB, "leave", DAVE, state=is_(dave="ban")),
    case("unban without the ban level", {6: "4.4.3", 8: "4.5.3", 12: "5.5.3"}, BOB, "leave", DAVE,
         state={**MODERATE, **is_(dave="ban")}),
]  # fmt: skip
BAN = [
    case("ban", OK, BOB, "ban", CAROL),
    case("of somebody absent", OK, BOB, "ban", DAVE),
    case("from outside", {6: "4.5.1", 8: "4.6.1", 12: "5.6.1"}, DAVE, "ban", CAROL),
    case("by the weak", {6: "4.5.3", 8: "4.6.3", 12: "5.6.3"}, CAROL, "ban", DAVE),
    case("with less than the ban level", {6: "4.5.3", 8: "4.6.3", 12: "5.6.3"}, BOB, "ban", DAVE, state=MODERATE),
    case("of an equal", {6: "4.5.3", 8: "4.6.3", 12: "5.6.3"}, ALICE, "ban", ALICE),
    case("of the creator", {6: "4.5.3", 8: "4.6.3", 12: "5.6.3"}, BOB, "ban", ALICE),
]
KNOCK = [
    case("knock", {7: None}, DAVE, "knock", DAVE, state=rule("knock")),
    case("again", {7: None}, DAVE, "knock", DAVE, state={**rule("knock"), **is_(dave="knock")}),
    case("after leaving", {7: None}, DAVE, "knock", DAVE, state={**rule("knock"), **is_(dave="leave")}),
    case("wrong rule", {7: "4.6.1", 8: "4.7.1", 12: "5.7.1"}, DAVE, "knock", DAVE, state=rule("invite")),
    case("knock_restricted", {7: "4.6.1", 8: "4.7.1", 10: None}, DAVE, "knock", DAVE, state=rule("knock_restricted")),
    case("for another", {7: "4.6.2", 8: "4.7.2", 12: "5.7.2"}, ALICE, "knock", DAVE, state=rule("knock")),
    *(
        case(f"being {now}", {7: "4.6.4", 8: "4.7.4", 12: "5.7.4"}, DAVE, "knock", DAVE,
             state={**rule("knock"), **is_(dave=now)})
        for now in ("ban", "invite", "join")
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "name", "refused_by"), everywhere(FORM, AUTHORISED, JOIN, INVITE, LEAVE, BAN, KNOCK), ids=title
)
def test_membership(line: Case, name: str, refused_by: str | None) -> None:
    assert judge(line, name) == refused_by


INVITER = signing.generate("0", b"identity server of third parties")
SIGNED = signing.sign_json({"mxid": DAVE, "token": "tok"}, ServerName("id.example"), INVITER)
STRANGER = signing.generate("0", b"somebody else, thirty-two bytes.")
ORIGIN: Key = ("m.room.third_party_invite", "tok")
ONE_KEY = {ORIGIN: {"public_key": INVITER.verify_key_b64}}
MORE_KEYS = {
    ORIGIN: {
        "public_key": STRANGER.verify_key_b64,
        "public_keys": [{"public_key": "!"}, 5, {}, {"public_key": INVITER.verify_key_b64}],
    }
}


def third(invite: Any) -> dict[str, Any]:
    """Return the content with a third-party invite."""
    return {"third_party_invite": invite}


THIRD_PARTY: list[tuple[str, str | None, str, Any, Any, Mapping[Key, Any]]] = [
    ("one key", None, ALICE, DAVE, {"signed": SIGNED}, ONE_KEY),
    ("one of several keys", None, ALICE, DAVE, {"signed": SIGNED}, MORE_KEYS),
    ("sender has left", None, ALICE, DAVE, {"signed": SIGNED}, {**ONE_KEY, **is_(alice="leave")}),
    ("banned", "1", ALICE, DAVE, {"signed": SIGNED}, {**ONE_KEY, **is_(dave="ban")}),
    ("not signed", "2", ALICE, DAVE, {}, ONE_KEY),
    ("no object", "2", ALICE, DAVE, "x", ONE_KEY),
    ("signed is no object", "2", ALICE, DAVE, {"signed": "x"}, ONE_KEY),
    ("no mxid", "3", ALICE, DAVE, {"signed": {"token": "tok"}}, ONE_KEY),
    ("no token", "3", ALICE, DAVE, {"signed": {"mxid": DAVE}}, ONE_KEY),
    ("for another", "4", ALICE, CAROL, {"signed": SIGNED}, {**ONE_KEY, member(CAROL): None}),
    ("unknown token", "5", ALICE, DAVE, {"signed": SIGNED}, {}),
    ("by another", "6", BOB, DAVE, {"signed": SIGNED}, ONE_KEY),
    ("wrong key", "8", ALICE, DAVE, {"signed": SIGNED}, {ORIGIN: {"public_key": STRANGER.verify_key_b64}}),
    ("no key", "8", ALICE, DAVE, {"signed": SIGNED}, {ORIGIN: {}}),
    ("no signatures", "8", ALICE, DAVE, {"signed": {"mxid": DAVE, "token": "tok"}}, ONE_KEY),
    ("tampered", "8", ALICE, DAVE, {"signed": {**SIGNED, "x": 1}}, ONE_KEY),
]


@pytest.mark.parametrize("name", versions.KNOWN)
@pytest.mark.parametrize("line", THIRD_PARTY, ids=lambda line: line[0])
def test_third_party_invites(line: tuple[str, str | None, str, Any, Any, Mapping[Key, Any]], name: str) -> None:
    what, number, sender, target, invite, state = line
    place = {"6": "4.3.1.", "7": "4.3.1.", "12": "5.4.1."}.get(name, "4.4.1.")
    refused_by = None if number is None else place + number
    invitation = case(what, {6: None}, sender, "invite", target, content=third(invite), state=state)
    assert judge(invitation, name) == refused_by


def test_the_table_tells_what_the_rules_will_say() -> None:
    six, eleven = (membership.table_of(versions.get(name)) for name in ("6", "11"))
    assert set(six.entry) == {"public", "invite"}
    assert eleven.entry["knock_restricted"] is membership.Entry.RESTRICTED
    assert eleven.knockable == {"knock", "knock_restricted"} and not six.knockable
    assert membership.membership_of(None) == "leave"
    assert membership.join_rule_of(None) == "invite"
