"""A vendor's bytes as data: the poison set, and what each of them reads as."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.read import view
from schemas.errors import MalformedRequest

JSON = "application/json"
AMBIGUOUS = ("ambiguous_json",)


@pytest.mark.parametrize(
    ("body", "data", "flags"),
    [
        (b'{"a":1,"b":[true,null,"x"]}', {"a": 1, "b": [True, None, "x"]}, ()),
        (b'{\n  "a" : 1\n}', {"a": 1}, ()),
        (b'{"a":"\\u003c\\/"}', {"a": "</"}, ()),
        (b'{"a":1,"a":2}', {"a": 2}, AMBIGUOUS),
        (b'{"a":1,"\\u0061":2}', {"a": 2}, AMBIGUOUS),
        (b'{"a":1, "a":"\\u0022:"}', {"a": '":'}, AMBIGUOUS),
        (b"[NaN,Infinity,-Infinity]", [None, None, None], AMBIGUOUS),
        (b"1e999", None, AMBIGUOUS),
        (b"9" * 5000, None, AMBIGUOUS),
        (b"18446744073709551615", 2**64 - 1, ()),
        (b"18446744073709551616", 1.8446744073709552e19, AMBIGUOUS),
        (b"[0.1234567890123456789012345]", [0.12345678901234568], AMBIGUOUS),
        (b"[1.10,1e3,1.5E+3,-0.0]", [1.1, 1000.0, 1500.0, -0.0], ()),
        (b'"\\u0000"', "\x00", ()),
        (b'{"a":"\\ud800"}', {"a": "\ufffd"}, ()),
        (b'{"a":"\\ud83d\\ude00","b":NaN}', {"a": "😀", "b": None}, AMBIGUOUS),
        (b"\xef\xbb\xbf{}", {}, ()),
        ('{"a":"é"}'.encode("utf-16"), {"a": "é"}, ()),
        ('{"a":"é"}'.encode("utf-32"), {"a": "é"}, ()),
        (b"null", None, ()),
        (b'"text"', "text", ()),
        (b"", None, ()),
        (b'{"__proto__":{"a":1}}', {"__proto__": {"a": 1}}, ()),
    ],
)
def test_json_reads_as(body: bytes, data: object, flags: tuple[str, ...]):
    assert view(body, JSON) == (data, flags)


@pytest.mark.parametrize(
    "body",
    [b"{", b"{} x", b'{"a":"\xff"}', b"[" * 100_000, b"[" * 900 + b"]" * 900, b"[" * 2000 + b"]" * 2000, b"\x00", b"{'a':1}"],
)
def test_what_is_no_json_is_malformed_and_says_so_without_the_body(body: bytes):
    with pytest.raises(MalformedRequest) as caught:
        view(body, JSON)
    assert "'a'" not in caught.value.detail


def test_what_is_read_can_be_written_again():
    for body in [b"[" * 200 + b"]" * 200, b'"\\ud800"', b"[NaN]", b"9" * 30]:
        orjson.dumps(view(body, JSON)[0])


def test_many_keys_are_read_in_time():
    body = json.dumps({f"k{number}": number for number in range(65_536)}).encode()

    assert len(view(body, JSON)[0]) == 65_536


@pytest.mark.parametrize(
    ("body", "kind", "pointer", "data"),
    [
        (b"a=1&b=2&b=3&c=", "application/x-www-form-urlencoded", "", {"a": "1", "b": ["2", "3"], "c": ""}),
        (b"payload=%7B%22zen%22%3A1%7D", "application/x-www-form-urlencoded", "/payload", {"zen": 1}),
        (b"events=%5B%7B%22a%22%3A1%7D%5D", "application/x-www-form-urlencoded", "/events/0", {"a": 1}),
        (b"__proto__=1", "application/x-www-form-urlencoded", "", {"__proto__": "1"}),
        (
            b'<n xmlns="u"><a x="1">t</a><b>1</b><b>2</b></n>',
            "text/xml",
            "",
            {"n": {"a": {"@x": "1", "#text": "t"}, "b": ["1", "2"]}},
        ),
        (b'{"a":1}\n\n{"a":2}\n', "application/x-ndjson", "/1", {"a": 2}),
        (b'{"a":1}\n{"a":2}', JSON, "/1", {"a": 2}),
        (b'{"Message":"{\\"a\\":{\\"b\\":1}}"}', "text/plain", "/Message/a", {"b": 1}),
        (b'{"m":{"data":"eyJlbWFpbCI6ICJhQGIuYyJ9"}}', JSON, "/m/data/email", "a@b.c"),
        (b'{"m":{"data":"eyJlbWFpbCI6ICJhQGIuYyJ9"}}', JSON, "/m/data", {"email": "a@b.c"}),
        (b"hello", "text/plain", "", "hello"),
        (b'{"a":1}', "", "", {"a": 1}),
        (b'{"a":[{"b":1},{"b":2}]}', JSON, "/a/1", {"b": 2}),
        (b'{"a/b":{"~":1}}', JSON, "/a~1b/~0", 1),
    ],
)
def test_other_bodies_read_as(body: bytes, kind: str, pointer: str, data: object):
    assert view(body, kind, pointer) == (data, ())


def test_a_multipart_file_is_its_name_size_and_type_and_never_its_bytes():
    body = (
        b'--x\r\nContent-Disposition: form-data; name="json"\r\n\r\n{"a":1}\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\nContent-Type: application/pdf\r\n\r\n%PDF-secret\r\n--x--\r\n'
    )

    assert view(body, "multipart/form-data; boundary=x")[0] == {
        "json": '{"a":1}',
        "file": {"filename": "a.pdf", "size": 11, "type": "application/pdf"},
    }
    assert view(body, "multipart/form-data; boundary=x", "/json/a")[0] == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "text/xml"),
        (b"<a>" * 5000, "text/xml"),
        (b"<a>" * 300 + b"</a>" * 300, "application/xml"),
        (b"a", "multipart/form-data"),
        (b'{"a":1}\n{"a":2', JSON),
        (b'{"a":1}{"a":2}', JSON),
        (b'[{"a":1}\n{"a":2}]', JSON),
        (b"--x\r\nno header", "multipart/form-data; boundary=y"),
        (b"--x\r\nno header", "multipart/form-data; boundary=\u0142\udc80"),
        (b"&".join([b"a=1"] * 20_000), "application/x-www-form-urlencoded"),
        (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 2000, "multipart/form-data; boundary=x"),
    ],
)
def test_a_hostile_body_is_malformed(body: bytes, kind: str):
    with pytest.raises(MalformedRequest):
        view(body, kind)


def test_what_has_no_view_is_null_and_flagged():
    assert view(b"\xff\xfe\x00\x01\x80", "application/octet-stream") == (None, ("unreadable",))
    assert view(b"{}", JSON, "/nothing/here") == (None, ("unreadable",))
    assert view(b"[1]", JSON, "/1") == (None, ("unreadable",))


KINDS = st.sampled_from(
    [
        JSON,
        "",
        "text/plain",
        "text/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/x-ndjson",
    ]
)


@given(
    body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
    kind=KINDS,
    pointer=st.sampled_from(["", "/a", "/0/b", "x"]),
)
def test_nothing_but_malformed_is_ever_raised(body: bytes, kind: str, pointer: str):
    try:
        data, _ = view(body, kind, pointer)
    except MalformedRequest:
        return
    orjson.dumps(data)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(document=JSONS, indent=st.sampled_from([None, 1]), is_ascii=st.booleans())
def test_plain_json_is_never_called_ambiguous(document: object, indent: int | None, is_ascii: bool):
    body = json.dumps(document, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")

    try:
        data, flags = view(body, JSON)
    except MalformedRequest:
        assert "\\ud" in json.dumps(document)
        return

    assert flags == ()
    if "\\ud" not in json.dumps(document):
        assert data == document
