import base64
import json

import pytest

from control.capture import read_capture
from schemas.errors import Invalid

RAW = b'POST /in/github-acme?x=1 HTTP/1.1\r\nHost: hooks.example.com\r\nX-Thing:  a b \r\nContent-Length: 8\r\n\r\n{"a": 1}'


def test_a_raw_message_is_read_as_it_was_sent():
    found = read_capture(RAW)

    assert found.method == "POST"
    assert found.url == "https://hooks.example.com/in/github-acme?x=1"
    assert found.headers == (("Host", "hooks.example.com"), ("X-Thing", "a b"), ("Content-Length", "8"))
    assert found.body == b'{"a": 1}'


def test_an_editors_line_ends_are_tolerated_in_the_head_and_kept_in_the_body():
    raw = b"POST /x HTTP/1.1\nA: 1\n\nline one\nline two\n"

    assert read_capture(raw).body == b"line one\nline two\n"


def test_a_line_break_that_an_editor_put_at_the_end_is_cut_by_the_content_length():
    assert read_capture(RAW + b"\r\n").body == b'{"a": 1}'


def test_a_body_that_is_longer_than_it_says_is_kept_whole():
    assert read_capture(RAW + b"more").body == b'{"a": 1}more'


def test_the_caller_may_say_how_the_vendor_called():
    assert read_capture(RAW, url="https://public.example/in/x").url == "https://public.example/in/x"


def test_a_chunked_body_is_put_together():
    raw = b'POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4;ext=1\r\n: 1}\r\n0\r\n\r\n'

    assert read_capture(raw).body == b'{"a": 1}'


def test_a_body_that_only_says_that_it_is_chunked_is_taken_as_it_is():
    raw = b'POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{"a": 1}'

    assert read_capture(raw).body == b'{"a": 1}'


def test_bytes_that_are_no_text_survive():
    raw = b"POST /x HTTP/1.1\r\nX: \xe9\r\n\r\n\xff\x00\r\n\xfe"

    found = read_capture(raw)

    assert found.body == b"\xff\x00\r\n\xfe"
    assert found.headers == (("X", "\xe9"),)


def test_a_get_without_a_body_is_read():
    found = read_capture(b"GET /in/x?challenge=1 HTTP/1.1\r\nHost: h\r\n")

    assert (found.method, found.url, found.body) == ("GET", "https://h/in/x?challenge=1", b"")


HAR_REQUEST = {
    "method": "post",
    "url": "https://hooks.example.com/in/x",
    "headers": [{"name": "A", "value": "1"}],
    "postData": {"mimeType": "application/json", "text": '{"a": "é"}'},
}


@pytest.mark.parametrize("wrapped", [HAR_REQUEST, {"request": HAR_REQUEST}, {"log": {"entries": [{"request": HAR_REQUEST}]}}])
def test_a_har_an_entry_and_a_request_are_read(wrapped):
    found = read_capture(json.dumps(wrapped).encode())

    assert (found.method, found.url, found.headers) == ("POST", "https://hooks.example.com/in/x", (("A", "1"),))
    assert found.body == '{"a": "é"}'.encode()


def test_a_har_may_keep_its_body_in_base64():
    post = {"text": base64.b64encode(b"\xff\x00").decode(), "encoding": "base64"}

    assert read_capture(json.dumps({**HAR_REQUEST, "postData": post}).encode()).body == b"\xff\x00"


def test_a_har_without_a_body_is_read():
    assert read_capture(json.dumps({"method": "GET", "url": "https://h/"}).encode()).body == b""


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no request line"),
        (b"hello\r\n\r\n", "no request line"),
        (b"POST /x HTTP/1.1\r\nno header here\r\n\r\n", "line 2 is no header"),
        (b"POST /x HTTP/1.1\r\nContent-Length: ten\r\n\r\n", "no number"),
        (b'{"a": ', "neither an HTTP/1.1 message nor a HAR"),
        (b'{"log": {"entries": []}}', "0 entries"),
        (b'{"log": {"entries": [{}, {}]}}', "2 entries"),
        (b'{"request": 7}', "no request"),
        (b'{"url": "https://h/"}', "lacks a method"),
        (b'{"method": "GET", "url": "https://h/", "headers": [7]}', "lacks a method"),
        (json.dumps({**HAR_REQUEST, "postData": {"params": [{"name": "a"}]}}).encode(), "capture the request raw"),
        (json.dumps({**HAR_REQUEST, "postData": {"text": "?", "encoding": "base64"}}).encode(), "says base64"),
    ],
)
def test_what_is_no_request_is_refused_with_what_would_be(raw, said):
    with pytest.raises(Invalid, match=said):
        read_capture(raw)
