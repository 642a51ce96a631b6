"""Signatures: the test vectors of the appendices, tampering, and a key that does not talk."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import signing
from appliance.matrix.canonical import Json
from appliance.matrix.ids import ServerName
from tests.matrix.test_canonical import texts, values

SEED = signing.decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
KEY = signing.generate("1", SEED)
DOMAIN = ServerName("domain")

VECTORS: list[tuple[dict[str, Json], str]] = [
    ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
    (
        {"one": 1, "two": "Two"},
        "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
    ),
]


@pytest.mark.parametrize(("obj", "signature"), VECTORS)
def test_vectors_of_the_appendices(obj: dict[str, Json], signature: str) -> None:
    signed = signing.sign_json(obj, DOMAIN, KEY)
    assert signed == {**obj, "signatures": {"domain": {"ed25519:1": signature}}}
    assert "signatures" not in obj
    signing.verify_json(signed, DOMAIN, "ed25519:1", KEY.verify_key_b64)
    signing.verify_json(signed, DOMAIN, "ed25519:1", KEY.verify_key)


@given(st.dictionaries(texts, values, max_size=4), texts, values)
def test_signatures_hold_until_something_changes(obj: dict[str, Json], key: str, value: Json) -> None:
    signed = signing.sign_json(obj, DOMAIN, KEY)
    signing.verify_json({**signed, "unsigned": {"age": 5}}, DOMAIN, "ed25519:1", KEY.verify_key)
    if key in ("signatures", "unsigned") or (key in signed and repr(signed[key]) == repr(value)):
        return
    with pytest.raises(signing.BadSignature):
        signing.verify_json({**signed, key: value}, DOMAIN, "ed25519:1", KEY.verify_key)


def test_signatures_of_others_and_unsigned_stay() -> None:
    other = signing.generate("b", bytes(32))
    once = signing.sign_json({"x": 1, "unsigned": {"age": 1}}, DOMAIN, KEY)
    twice = signing.sign_json(signing.sign_json(once, DOMAIN, other), ServerName("else"), other)
    assert twice["unsigned"] == {"age": 1}
    for server, key in (("domain", KEY), ("domain", other), ("else", other)):
        signing.verify_json(twice, server, key.key_id, key.verify_key)
    with pytest.raises(signing.BadSignature):
        signing.verify_json(twice, "else", "ed25519:b", KEY.verify_key)


GOOD = signing.sign_json({"x": 1}, DOMAIN, KEY)


@pytest.mark.parametrize(
    "signatures",
    [None, 5, {}, {"domain": None}, {"domain": {}}, {"domain": {"ed25519:1": 7}}, {"domain": {"ed25519:1": ""}},
     {"domain": {"ed25519:1": "!!!!"}}, {"domain": {"ed25519:1": "A" * 85}}, {"domain": {"ed25519:1": "A" * 86}},
     {"domain": {"ed25519:1": "ü"}}, {"domain": {"ed25519:2": "A" * 86}}],
)  # fmt: skip
def test_bad_signatures(signatures: Json) -> None:
    with pytest.raises(signing.BadSignature):
        signing.verify_json({"x": 1, "signatures": signatures}, DOMAIN, "ed25519:1", KEY.verify_key)


@pytest.mark.parametrize("verify_key", ["", "AAAA", "!", b"", b"x" * 31, "A" * 43, b"\xff" * 32])
def test_bad_keys(verify_key: bytes | str) -> None:
    with pytest.raises(signing.BadSignature):
        signing.verify_json(GOOD, DOMAIN, "ed25519:1", verify_key)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"", ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foob", "Zm9vYg"), (b"fooba", "Zm9vYmE"),
     (b"foobar", "Zm9vYmFy")],
)  # fmt: skip
def test_unpadded_base64(raw: bytes, text: str) -> None:
    assert signing.encode_base64(raw) == text
    assert signing.decode_base64(text) == signing.decode_base64(text + "=" * (-len(text) % 4)) == raw


@given(st.binary(max_size=40))
def test_base64_there_and_back(raw: bytes) -> None:
    text = signing.encode_base64(raw)
    assert signing.decode_base64(text) == signing.decode_base64(text.replace("+", "-").replace("/", "_")) == raw


@pytest.mark.parametrize("text", ["A", "A B C", "Zg\n", "Z=g", "äöü!"])
def test_not_base64(text: str) -> None:
    with pytest.raises(ValueError):
        signing.decode_base64(text)


def test_dump_and_load() -> None:
    line = signing.dump(KEY)
    again = signing.load(line + "\n")
    assert again.key_id == "ed25519:1" and again.verify_key == KEY.verify_key
    assert again.sign(b"x") == KEY.sign(b"x")
    for wrong in ("", "rsa 1 AAAA", "ed25519 1", "ed25519 1 AAAA", "ed25519 : " + line.split()[2]):
        with pytest.raises(ValueError):
            signing.load(wrong)


def test_the_key_does_not_talk() -> None:
    secret = signing.dump(KEY).split()[2]
    assert secret not in f"{KEY} {KEY!r} {[KEY]}"
    for tell in (pickle.dumps, copy.copy, copy.deepcopy, vars):
        with pytest.raises(TypeError):
            tell(KEY)
