"""The SSRF table, through every spelling of an address."""

from __future__ import annotations

import pytest

from egress.guard import DENIED_V4, DENIED_V6, FRAMING_HEADERS, check_address, check_headers, check_url
from schemas.errors import AddressRefused, BadSetting

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:0a00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.17.0.1",
          "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8"]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_inner_address_is_refused(address):
    with pytest.raises(AddressRefused):
        check_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_called(address):
    check_address(address)


@pytest.mark.parametrize("network", [*DENIED_V4, *DENIED_V6], ids=str)
def test_both_ends_of_each_denied_network_are_refused(network):
    for address in (network[0], network[-1]):
        with pytest.raises(AddressRefused):
            check_address(address)


def test_what_is_no_address_is_refused():
    with pytest.raises(AddressRefused):
        check_address("localhost")


@pytest.mark.parametrize("address", [each for each in PRIVATE if "%" not in each])
def test_an_inner_address_as_a_literal_host_is_refused(address):
    host = f"[{address}]" if ":" in address else address

    with pytest.raises(AddressRefused):
        check_url(f"https://{host}/wake", allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/", "https://0/",
        "https://①②⑦.0.0.1/", "https://１２７.1/", "https://127.0.0.1./", "https://127。0。0。1/", "https://[::1]/", "https://[::]/",
        "https://[fe80::1%25eth0]/", "https://[::ffff:7f00:1]/", "https://[0:0:0:0:0:ffff:127.0.0.1]/", "https://0x7f.0x0.0x0.0x1/",
        "https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://a.localhost/", "https://ｌocalhost/",
        "https://1.2.3.0x4/", "https://foo.0x7f/", "https://8.8.8.8.8/",
    ],
)  # fmt: skip
def test_an_odd_spelling_of_this_machine_is_refused(url):
    with pytest.raises(AddressRefused):
        check_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://user@agent.example/", "https://user:pass@agent.example/", "https://:pass@agent.example/", "https://@agent.example/",
        "https://agent.example\\@127.0.0.1/", "https://agent.example /", "https://agent\t.example/", "https://agent.example/\r\nx: y",
        "https:///path", "https://", "agent.example/wake", "//agent.example/", "", "https://agent.example:99999/", "https://[::1/",
        "https://[::g]/",
    ],
)  # fmt: skip
def test_a_url_that_parsers_read_differently_is_refused(url):
    for allow_private in (False, True):
        with pytest.raises(AddressRefused):
            check_url(url, allow_private=allow_private)


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "gopher", "data", "unix", "ws", "javascript"])
def test_only_https_is_called_by_default(scheme):
    with pytest.raises(AddressRefused):
        check_url(f"{scheme}://agent.example/", allow_private=False)


def test_http_is_called_where_it_is_asked_for():
    assert check_url("http://agent.example/", allow_private=False, allow_http=True).host == "agent.example"


@pytest.mark.parametrize("port", [22, 25, 81, 5432, 6379, 9092, 9200, 65535])
def test_a_port_of_other_services_is_refused(port):
    with pytest.raises(AddressRefused):
        check_url(f"https://agent.example:{port}/", allow_private=False)


@pytest.mark.parametrize("port", [80, 443, 8080, 8443])
def test_a_port_of_web_servers_is_called(port):
    assert check_url(f"https://agent.example:{port}/", allow_private=False).port == port


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/wake", "http://[::1]:9000/", "http://localhost:9000/", "http://10.0.0.1:22/"]
)
def test_allow_private_lifts_the_rules_on_address_port_and_scheme(url):
    assert str(check_url(url, allow_private=True)) == url


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://2130706433/", "http://0x7f.1/"])
def test_allow_private_keeps_the_rules_on_spelling(url):
    with pytest.raises(AddressRefused):
        check_url(url, allow_private=True)


def test_the_path_and_query_are_kept_as_written():
    assert (
        str(check_url("https://agent.example/a%2Fb?x=%20y&z=1", allow_private=False))
        == "https://agent.example/a%2Fb?x=%20y&z=1"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nb: c"},
        {"x": "a\x00"},
        {"x y": "1"},
        {"": "1"},
        {"x:": "1"},
        {"x": "\ud800"},
        {"naïve": "1"},
        *({name.title(): "1"} for name in FRAMING_HEADERS),
    ],
)
def test_a_header_that_frames_or_breaks_the_request_is_refused(headers):
    with pytest.raises(BadSetting):
        check_headers(headers)


def test_ordinary_headers_are_sent():
    check_headers({"Authorization": "Bearer a.b-c", "x-team": "night shift\t№ 1"})
