"""Identifier grammar: the specification's examples, historical ids, and what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam

SERVERS = ["matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678",
           "localhost", "a-b.example", "[::ffff:1.2.3.4]", "x" * 230, "klinik.example:08448"]  # fmt: skip
NO_SERVERS = ["", ":8448", "matrix.org:", "matrix.org:123456", "matrix.org:abc", "under_score.org", "ünicode.org",
              "1.2.3.400", "matrix.org:70000", "[1234", "1234::abcd", "[12345::]", "[::1%eth0]", "a b", "a/b",
              "x" * 256, "a\n", None, 7]  # fmt: skip


@pytest.mark.parametrize("name", SERVERS)
def test_server_names(name: str) -> None:
    assert ids.server_name(name) == name


@pytest.mark.parametrize("name", NO_SERVERS)
def test_not_server_names(name: object) -> None:
    with pytest.raises(InvalidParam):
        ids.server_name(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("matrix.org", ("matrix.org", None)), ("matrix.org:80", ("matrix.org", 80)), ("[::1]", ("[::1]", None)),
     ("[::1]:8448", ("[::1]", 8448)), ("1.2.3.4:1", ("1.2.3.4", 1))],
)  # fmt: skip
def test_split_port(name: str, parts: tuple[str, int | None]) -> None:
    assert ids.split_port(name) == parts


USERS = ["@alice:example.org", "@a.b_c=d-e/f+1:example.org", "@UPPER:example.org", "@:example.org", "@ü:example.org",
         "@with space:example.org", "@line\nbreak:example.org", "@bob:[::1]:8448", "@x:1.2.3.4:5"]  # fmt: skip
NO_USERS = ["alice:example.org", "@alice", "@alice:", "@al:ice:example.org", "@nul\x00:example.org",
            "@lone\ud800:example.org", "#alice:example.org", "@alice:exa mple", "@alice:example.org\n",
            "@" + "x" * 250 + ":a.org", "@" + "ü" * 125 + ":a.org", "", None, 1, ["@a:b"]]  # fmt: skip


@pytest.mark.parametrize("text", USERS)
def test_user_ids(text: str) -> None:
    assert ids.user_id(text) == text and ids.is_user_id(text)


@pytest.mark.parametrize("text", NO_USERS)
def test_not_user_ids(text: object) -> None:
    assert not ids.is_user_id(text)
    with pytest.raises(InvalidParam):
        ids.user_id(text)


def test_length_counts_bytes() -> None:
    longest = "@" + "x" * 248 + ":a.org"
    assert len(longest) == 255 and ids.is_user_id(longest)
    assert not ids.is_user_id("@x" + longest[1:])
    assert not ids.is_user_id("@ü" + longest[2:])


@pytest.mark.parametrize("localpart", ["alice", "a.b", "x=2", "a/b+c-d_e", "0"])
def test_new_user_ids(localpart: str) -> None:
    assert ids.new_user_id(localpart, ids.ServerName("a.org")) == f"@{localpart}:a.org"


@pytest.mark.parametrize("localpart", ["", "Alice", "ü", "a b", "a:b", "x" * 300, "a\n"])
def test_refused_new_user_ids(localpart: str) -> None:
    with pytest.raises(InvalidParam) as refusal:
        ids.new_user_id(localpart, ids.ServerName("a.org"))
    assert refusal.value.errcode == "M_INVALID_USERNAME"


HASH = "Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ"


@pytest.mark.parametrize("text", ["!abc:example.org", "!" + HASH, "!Ünî:example.org:80"])
def test_room_ids(text: str) -> None:
    assert ids.room_id(text) == text


@pytest.mark.parametrize("text", ["!", "!abc", "!:a.org", "!" + HASH + "x", "!" + HASH[:-1] + "+", "#abc:a.org", None])
def test_not_room_ids(text: object) -> None:
    with pytest.raises(InvalidParam):
        ids.room_id(text)


def test_other_ids() -> None:
    assert ids.room_alias("#Stätion 3:example.org") == "#Stätion 3:example.org"
    assert ids.event_id("$" + HASH) == "$" + HASH
    assert ids.event_id("$old:example.org") == "$old:example.org"
    assert ids.device_id("ABC DEF") == "ABC DEF"
    for parse, text in ((ids.room_alias, "#x"), (ids.event_id, "$"), (ids.event_id, "x"), (ids.device_id, "")):
        with pytest.raises(InvalidParam):
            parse(text)


def test_parts() -> None:
    assert ids.server_of("@a:b.org:80") == "b.org:80"
    assert ids.localpart("@a:b.org:80") == "a"
    with pytest.raises(InvalidParam):
        ids.server_of("!" + HASH)


@given(st.text(max_size=40))
def test_whatever_is_typed_parses_or_is_refused(text: str) -> None:
    for parse in (ids.user_id, ids.room_id, ids.room_alias, ids.event_id, ids.device_id, ids.server_name):
        try:
            assert parse(text) == text
        except InvalidParam as refusal:
            assert refusal.status == 400
