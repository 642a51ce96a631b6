"""Canonical JSON: the examples of the appendices, a second encoder, and what strict reading refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import canonical
from appliance.matrix.canonical import MAX_INTEGER, Json
from appliance.matrix.errors import BadJson, NotJson

EXAMPLES = [
    ("{}", "{}"),
    ('{ "one": 1, "two": "Two" }', '{"one":1,"two":"Two"}'),
    ('{ "b": "2", "a": "1" }', '{"a":"1","b":"2"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",'
        ' "three_pids": [{"medium": "email", "address": "john.doe@example.org"},'
        ' {"medium": "msisdn", "address": "123456789"}]}}}',
        '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":'
        '[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
        '"success":true}}',
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    ('{"a": "\\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
    ('{"a": -0}', '{"a":0}'),
]


@pytest.mark.parametrize(("text", "expected"), EXAMPLES)
def test_examples_of_the_appendices(text: str, expected: str) -> None:
    value = canonical.decode(text.encode())
    canonical.check_canonical(value)
    assert canonical.encode(value) == expected.encode()


def reference(value: Json) -> bytes:
    """The encoder printed in the appendices, on the standard library."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_same_bytes_as_a_second_encoder_and_back(value: Json) -> None:
    canonical.check_canonical(value)
    raw = canonical.encode(value)
    assert raw == reference(value)
    assert canonical.decode(raw) == value == json.loads(raw)
    assert canonical.encode(canonical.decode(canonical.dumps(value))) == raw


def test_keys_sort_by_code_point_not_by_utf16() -> None:
    raw = canonical.encode({"\U00010000": 1, "\uffff": 2, "z": 3, "": 4})
    assert raw == '{"":4,"z":3,"\uffff":2,"\U00010000":1}'.encode()


def test_control_characters_have_one_spelling() -> None:
    text = "".join(map(chr, range(0x20))) + '"\\/\x7f'
    assert canonical.encode(text) == reference(text)


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"NaN", b"Infinity", b"-Infinity", b"1e999", b'{"a":NaN}', b'"\\ud800"', b'"\\udc00\\ud800"',
     b'{"\\ud800":1}', b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b"{'a':1}", b"{a:1}", b'{"a":1,}', b"01",
     b'"\n"', b"{}{}", b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 100000],
)  # fmt: skip
def test_not_json(raw: bytes) -> None:
    with pytest.raises(NotJson):
        canonical.decode(raw)


def test_depth_is_counted_not_guessed() -> None:
    assert canonical.decode(b"[" * 64 + b"]" * 64)
    many = b'{"a":[' + b",".join([b'{"b":[]}'] * 500) + b"]}"
    assert canonical.decode(many) == json.loads(many)
    brackets = json.dumps({"body": "[{" * 200}).encode()
    assert canonical.decode(bytearray(brackets)) == canonical.decode(memoryview(brackets))
    for text in ("[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65):
        with pytest.raises(NotJson):
            canonical.decode(text)


def test_objects_only() -> None:
    assert canonical.decode_object(b'{"a":1}') == {"a": 1}
    for raw in (b"[]", b"1", b"null", b'"x"'):
        with pytest.raises(BadJson):
            canonical.decode_object(raw)


def test_of_a_double_key_the_last_counts() -> None:
    assert canonical.decode(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    "value",
    [1.0, 1e10, 0.5, float("nan"), MAX_INTEGER + 1, -MAX_INTEGER - 1, 2**64, 2**70, {"a": [{"b": 1.5}]}, [[2**53]],
     {1: 2}, object()],
)  # fmt: skip
def test_not_canonical(value: Json) -> None:
    with pytest.raises(BadJson):
        canonical.check_canonical(value)


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**64, "\ud800", {"\udfff": 1}])
def test_no_canonical_form(value: Json) -> None:
    with pytest.raises(BadJson):
        canonical.encode(value)


@pytest.mark.parametrize("value", [MAX_INTEGER, -MAX_INTEGER, 0, True, None, "", {}, [], {"a": [1, {"b": None}]}])
def test_canonical(value: Json) -> None:
    canonical.check_canonical(value)


@pytest.mark.parametrize("raw", [b"1e10", b"1.0", b"-0.0", b"18446744073709551616", b"123456789012345678901234567890"])
def test_numbers_written_otherwise_are_no_integers(raw: bytes) -> None:
    """Read as floats, hence refused in events: the example `1e10` of the appendices is input for a converter."""
    with pytest.raises(BadJson):
        canonical.check_canonical(canonical.decode(raw))


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    try:
        value = canonical.decode(raw)
    except NotJson:
        return
    assert json.loads(raw) == value or value != value
