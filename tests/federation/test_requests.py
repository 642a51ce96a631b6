"""X-Matrix: what we sign others can verify, what others write is read as the RFC says, nothing else gets through."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as Reference

from appliance.federation.requests import Unauthorized, authorization, credentials, signed_form, verify
from appliance.matrix import canonical
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import encode_base64, generate

SEED = bytes(range(32))
KEY = generate("1", SEED)
A, B = ServerName("a.example"), ServerName("b.example:8448")
KEYS = {KEY.key_id: KEY.verify_key}


def reference(method: str, uri: str, content: object = None, destination: str | None = B, origin: str = A) -> str:
    """Sign as the specification's own example does, with another library."""
    signed: dict[str, object] = {"method": method, "uri": uri, "origin": origin}
    if destination is not None:
        signed["destination"] = destination
    if content is not None:
        signed["content"] = content
    text = json.dumps(signed, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    return encode_base64(Reference(SEED).sign(text).signature)


CASES = [
    ("GET", "/_matrix/federation/v1/version?a=%20b&c", None),
    ("PUT", "/_matrix/federation/v1/send/1", {"pdus": [], "edus": [{"b": 1, "a": [None, True, "ü€𝄞\n\""]}], "Z": {}}),
    ("POST", "/x", {}),
]


@pytest.mark.parametrize(("method", "uri", "content"), CASES)
def test_our_header_is_the_one_of_the_specification(method: str, uri: str, content: dict[str, object] | None) -> None:
    raw = None if content is None else canonical.encode(content)  # type: ignore[arg-type]
    signature = reference(method, uri, content)
    header = authorization(KEY, A, B, method, uri, raw)
    assert header == f'X-Matrix origin="{A}",destination="{B}",key="ed25519:1",sig="{signature}"'
    claim = credentials([header], B)
    verify(claim, method, uri, raw, KEYS)


LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.dictionaries(st.text(), TREES))
def test_splicing_is_encoding(content: dict[str, object]) -> None:
    whole = {"content": content, "destination": B, "method": "PUT", "origin": A, "uri": "/ü"}
    assert signed_form(A, B, "PUT", "/ü", canonical.encode(content)) == canonical.encode(whole)  # type: ignore[arg-type]


SIG = reference("GET", "/x")
WRITTEN = [
    f'X-Matrix origin="a.example",destination="b.example:8448",key="ed25519:1",sig="{SIG}"',
    f"X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:1,sig={SIG}",
    f'x-matrix   Origin=a.example , DESTINATION="b.example:8448" ,\tkey="ed25519:1" , sig="{SIG}"',
    f'X-Matrix sig="{SIG}",key="ed25519:1",future="a, \\"b\\" = c",destination="b.example:8448",origin="a.example"',
    f'X-Matrix origin="\\a.ex\\ample",destination="b.example:8448",key="ed25519:1",sig="{SIG}"',
    f'X-Matrix ,origin = "a.example",, destination="b.example:8448",key="ed25519:1",sig="{SIG}",  ',
    f'X-Matrix origin="a.example",destination="b.example:8448",key="ed25519:1",sig="{SIG}=="',
]


@pytest.mark.parametrize("header", WRITTEN)
def test_every_way_of_writing_it(header: str) -> None:
    claim = credentials([header], B)
    assert (claim.origin, claim.destination) == (A, B)
    verify(claim, "GET", "/x", None, KEYS)


def test_an_old_server_leaves_the_destination_out() -> None:
    signature = reference("GET", "/x", destination=None)
    claim = credentials([f'X-Matrix origin={A},key="ed25519:1",sig="{signature}"'], B)
    verify(claim, "GET", "/x", None, KEYS)


@pytest.mark.parametrize(
    "headers",
    [
        [], [""], ["Bearer abc"], ["X-Matrix"], ["X-Matrix "], ["X-Matrix origin"], ["X-Matrix origin="],
        ['X-Matrix origin="a.example'], ['X-Matrix origin="a.example\\"'],
        [f'X-Matrix key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin="a b",key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin="a:99999",key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin=a,origin=b,key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin=a.example,destination=c.example,key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin=a.example,destination=,key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin=a.example,destination="",key="ed25519:1",sig="{SIG}"'],
        [f'X-Matrix origin=a.example,key="rsa:1",sig="{SIG}"'],
        [f'X-Matrix origin=a.example,key="ed25519:a-b",sig="{SIG}"'],
        ['X-Matrix origin=a.example,key="ed25519:1",sig="ä"'],
        [WRITTEN[0], WRITTEN[0].replace("a.example", "c.example")],
        [WRITTEN[0], WRITTEN[0].replace(',destination="b.example:8448"', "")],
        [WRITTEN[0]] * 5,
        [WRITTEN[0] + ',x="' + "y" * 5000 + '"'],
        ["X-Matrix " + "a=b," * 900 + '"'],
    ],
)  # fmt: skip
def test_what_proves_nothing(headers: Sequence[str]) -> None:
    with pytest.raises(Unauthorized) as refused:
        credentials(headers, B)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("method", "uri", "content"),
    [("POST", "/x", None), ("GET", "/x?", None), ("GET", "/x", b"{}"), ("GET", "/y", None)],
)
def test_the_signature_covers_everything(method: str, uri: str, content: bytes | None) -> None:
    with pytest.raises(Unauthorized):
        verify(credentials([WRITTEN[0]], B), method, uri, content, KEYS)


def test_a_signature_for_another_server_or_by_another_is_worth_nothing() -> None:
    for signature in (reference("GET", "/x", destination="c.example"), reference("GET", "/x", origin="c.example")):
        with pytest.raises(Unauthorized):
            verify(credentials([WRITTEN[0].replace(SIG, signature)], B), "GET", "/x", None, KEYS)


def test_several_signatures_one_must_hold_and_none_may_be_wrong() -> None:
    second = WRITTEN[0].replace("ed25519:1", "ed25519:2")
    claim = credentials([WRITTEN[0], second], B)
    verify(claim, "GET", "/x", None, KEYS)
    verify(claim, "GET", "/x", None, {**KEYS, "ed25519:2": KEY.verify_key})
    for keys in ({}, {**KEYS, "ed25519:2": generate("2", b"2" * 32).verify_key}, {"ed25519:2": b"short"}):
        with pytest.raises(Unauthorized):
            verify(claim, "GET", "/x", None, keys)


@given(st.text(max_size=300))
def test_nothing_else_escapes(text: str) -> None:
    try:
        credentials(["X-Matrix " + text], B)
    except Unauthorized:
        return
