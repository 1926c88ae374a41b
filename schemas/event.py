"""The event: a CloudEvents 1.0 envelope around the vendor's untouched bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from schemas.times import iso, ms_of

SPECVERSION = "1.0"
WIRE_VERSION = "1"


class Flag(StrEnum):
    """What is odd about an event, though it was taken."""

    AMBIGUOUS_JSON = "ambiguous_json"  # a key stands twice in one object, or a number has no exact value here
    UNREADABLE = "unreadable"  # no JSON view could be made of the body; `data` is null
    SPOOLED = "spooled"  # it waited in a local spool; order between replicas is the log's
    LOOP_CUT = "loop_cut"  # an outcome at the end of a chain that the loop guard cut: it wakes nobody


@dataclass(frozen=True, slots=True)
class Event:
    """What came in, in our one shape.  `body` is the vendor's request body, byte for byte; `data` is derived from it.

    `pointer` (RFC 6901) names the item of a batch that this event is; empty: the whole body.  `partitionkey` is the ordering
    key: team/source/stable id of the subject, or the event's own id where there is no subject.  `identity_window_ms` says how
    long a redelivery is recognised.  Times are ms since 1970 UTC.
    """

    id: str
    team: str
    source: str
    provider: str
    family: str
    type: str
    partitionkey: str
    time_ms: int
    received_ms: int
    traceparent: str
    datacontenttype: str
    body: bytes
    kind: str = ""
    subject: str = ""
    actor: str = ""
    url: str = ""
    summary: str = ""
    deliveryid: str = ""
    version: str = ""
    pointer: str = ""
    flags: tuple[str, ...] = ()
    identity_window_ms: int = 0
    causationid: str = ""
    replayid: str = ""

    def envelope(self) -> dict[str, Any]:
        """The attributes as INTERFACE names them, without `data`; what is empty is absent."""
        found: dict[str, Any] = {
            "specversion": SPECVERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": iso(self.time_ms),
            "datacontenttype": self.datacontenttype,
            "team": self.team,
            "provider": self.provider,
            "receivedtime": iso(self.received_ms),
            "partitionkey": self.partitionkey,
            "traceparent": self.traceparent,
        }
        for name in _OPTIONAL:
            if value := getattr(self, name):
                found[name] = value
        if self.flags:
            found["flags"] = list(self.flags)
        return found

    def document(self, data: Any) -> dict[str, Any]:
        """The one JSON document that patterns, views and people see: the envelope with `data` in it."""
        found = self.envelope()
        found["data"] = data
        return found


_OPTIONAL = ("kind", "subject", "actor", "url", "summary", "deliveryid", "version", "causationid", "replayid")
_TIMES = frozenset({"time_ms", "received_ms"})
_INTS = _TIMES | {"identity_window_ms"}
# CloudEvents attribute names are lower-case letters and digits only; what is ours alone starts with nb.
_WIRE = {
    "id": "ce_id", "team": "ce_team", "source": "ce_source", "provider": "ce_provider", "family": "ce_nbfamily",
    "type": "ce_type", "partitionkey": "ce_partitionkey", "time_ms": "ce_time", "received_ms": "ce_receivedtime",
    "traceparent": "ce_traceparent", "datacontenttype": "content-type", "kind": "ce_kind", "subject": "ce_subject",
    "actor": "ce_actor", "url": "ce_url", "summary": "ce_summary", "deliveryid": "ce_deliveryid", "version": "ce_version",
    "pointer": "ce_nbpointer", "flags": "ce_nbflags", "identity_window_ms": "ce_nbwindow", "causationid": "ce_causationid",
    "replayid": "ce_replayid",
}  # fmt: skip
assert {f.name for f in fields(Event)} == {*_WIRE, "body"}


def to_headers(event: Event) -> dict[str, str]:
    """The record's headers: CloudEvents binary mode of the Kafka protocol binding; the value beside them is `event.body`."""
    found = {"ce_specversion": SPECVERSION, "ce_nbwire": WIRE_VERSION}
    for name, header in _WIRE.items():
        value = getattr(event, name)
        if value or name in _TIMES:
            found[header] = value if value.__class__ is str else _written(name, value)
    return found


def _written(name: str, value: Any) -> str:
    if name in _TIMES:
        return iso(value)
    return ",".join(value) if name == "flags" else str(value)


def from_headers(headers: Mapping[str, str], body: bytes) -> Event:
    """The event that `to_headers` wrote; what a newer version added is passed over.  Raises ValueError where it is not ours."""
    if headers.get("ce_nbwire") != WIRE_VERSION:
        raise ValueError(f"a record of wire version {headers.get('ce_nbwire')!r}; this build reads {WIRE_VERSION}")
    found: dict[str, Any] = {"body": body}
    for name, header in _WIRE.items():
        text = headers.get(header)
        if text is not None:
            found[name] = _read(name, text) if name in _INTS or name == "flags" else text
    try:
        return Event(**found)
    except TypeError as exc:
        raise ValueError(f"a record without {exc.args[0].rpartition(':')[2].strip()}") from exc


def _read(name: str, text: str) -> int | tuple[str, ...]:
    if name == "flags":
        return tuple(text.split(","))
    return int(text) if name == "identity_window_ms" else ms_of(text)


def from_envelope(envelope: Mapping[str, Any], body: bytes, *, family: str, pointer: str) -> Event:
    """The event whose `envelope()` this is (as the store keeps it), with its body."""
    found = {name: envelope[name] for name in _OPTIONAL if name in envelope}
    return Event(
        id=envelope["id"],
        team=envelope["team"],
        source=envelope["source"],
        provider=envelope["provider"],
        family=family,
        type=envelope["type"],
        partitionkey=envelope["partitionkey"],
        time_ms=ms_of(envelope["time"]),
        received_ms=ms_of(envelope["receivedtime"]),
        traceparent=envelope["traceparent"],
        datacontenttype=envelope["datacontenttype"],
        body=body,
        pointer=pointer,
        flags=tuple(envelope.get("flags", ())),
        **found,
    )
