"""Which addresses Nightbell calls, and which it refuses.

Two checks, both needed.  `check_url` reads the URL before anything is asked of the network; `check_address` is asked for every
address that is about to be connected to, so that a name which resolves to another address the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from yarl import URL

from schemas.errors import AddressRefused, BadSetting

ALLOWED_PORTS = frozenset({80, 443, 8080, 8443})

# Written out rather than left to `ipaddress.is_global`, which calls 64:ff9b::7f00:1 (127.0.0.1 through NAT64) global.
DENIED_V4: tuple[IPv4Network, ...] = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host service: a public number that is inside
        "169.254.0.0/16",  # link-local; the metadata services of AWS, GCP, Azure
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
DENIED_V6: tuple[IPv6Network, ...] = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # unspecified, loopback, and the old v4-compatible form
        "::ffff:0:0:0/96",  # v4-translated (SIIT)
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",  # unique local; covers fd00:ec2::254, AWS's metadata service
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")  # RFC 9110, 5.6.2
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
FRAMING_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "proxy-connection",
    }
)
# A last label that is a number, in any base, is an IPv4 address to some parsers (WHATWG URL, 3.5): 127.1, 0x7f.1, 2130706433.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:0[xX][0-9a-fA-F]*|[0-9]+)\.?$")


def _refused(detail: str, **fields: str) -> AddressRefused:
    """A refusal in the shape of the client's other failures: of kind `address`, and nothing was sent."""
    return AddressRefused(detail, kind="address", sent=False, **fields)


def check_address(address: str | IPv4Address | IPv6Address) -> None:
    """Raise AddressRefused where `address` is private, loopback, link-local, reserved, or a wrapping of one that is.

    Text may carry an IPv6 zone (`fe80::1%eth0`); what is no address at all is refused too.
    """
    if isinstance(address, str):
        try:
            address = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise _refused(f"{address!r} is no address that can be checked") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    denied = DENIED_V4 if isinstance(address, IPv4Address) else DENIED_V6
    for network in denied:
        if address in network:
            raise _refused(
                f"{address} is in {network}, which Nightbell does not call; the agent's `allow_private: true` would let it",
                address=str(address),
                network=str(network),
            )


def check_url(url: str | URL, *, allow_private: bool, allow_http: bool = False) -> URL:
    """The parsed URL, where its scheme, port, host and spelling may be called; else AddressRefused.

    `allow_private` lifts the rules on scheme (http or https), port and address, never those on spelling.  No name is resolved
    here: the addresses that a name has are checked when they are connected to.
    """
    parsed = _parsed(url)
    host = parsed.raw_host or ""
    if not allow_private:
        _check_scheme(parsed, allow_http=allow_http)
    elif parsed.scheme not in {"http", "https"}:
        raise _refused(f"scheme {parsed.scheme!r} is not http or https")
    if parsed.raw_user is not None or parsed.raw_password is not None or "@" in _authority(url):
        raise _refused("a URL with a user or password in it is refused: put credentials in a header")
    if not host:
        raise _refused("the URL has no host")
    literal = _literal(host)
    if literal is None and (":" in host or _ENDS_IN_NUMBER.search(host)):
        raise _refused(f"host {host!r} is an odd spelling of an address: write it as four decimal numbers")
    if allow_private:
        return parsed
    if literal is not None:
        check_address(literal)
    elif _names_this_machine(host):
        raise _refused(f"host {host!r} is this machine; the agent's `allow_private: true` would let it")
    if parsed.port not in ALLOWED_PORTS:
        raise _refused(f"port {parsed.port} is not one of 80, 443, 8080, 8443")
    return parsed


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise BadSetting where a header that an operator wrote could not be sent as it is, or would frame the request anew."""
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise BadSetting(f"{name!r} is no name of a header")
        if name.lower() in FRAMING_HEADERS:
            raise BadSetting(f"the header {name!r} is set by Nightbell alone")
        if _NOT_IN_VALUE.search(value):
            raise BadSetting(f"the value of the header {name!r} holds a control character")


def _parsed(url: str | URL) -> URL:
    if isinstance(url, URL):
        return url
    if any(character <= " " or character in "\\\x7f" for character in url):
        # Parsers disagree about these; a strict one and a lax one would see two different hosts.
        raise _refused("the URL holds a blank, a control character or a backslash")
    try:
        return URL(url)
    except ValueError as exc:
        raise _refused(f"the URL cannot be read: {exc}") from exc


def _check_scheme(parsed: URL, *, allow_http: bool) -> None:
    if parsed.scheme == "https" or (parsed.scheme == "http" and allow_http):
        return
    raise _refused(f"scheme {parsed.scheme!r} is refused: use https, or set `allow_private: true` for an inner address")


def _authority(url: str | URL) -> str:
    """What stands between `//` and the path; yarl drops an empty user (`https://@host/`) that others may read differently."""
    return re.split(r"[/?#]", str(url).partition("//")[2], maxsplit=1)[0]


def _names_this_machine(host: str) -> bool:
    bare = host.rstrip(".").lower()
    return bare in {"localhost", "ip6-localhost"} or bare.endswith(".localhost")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells canonically, without brackets, zone or final dot; None for a name."""
    bare = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare.rstrip(".") if ":" not in bare else bare)
    except ValueError:
        return None
