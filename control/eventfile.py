"""An event given by a file or by its id, as the document that patterns and views see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from schemas.config import DEFAULT_TEAM
from schemas.errors import Invalid
from schemas.event import Event
from schemas.ids import EVENT, digest_id
from schemas.times import ms_of

_TRACEPARENT = "00-00000000000000000000000000000000-0000000000000000-00"
_TEXTS = ("kind", "subject", "actor", "url", "summary", "deliveryid", "version", "causationid", "replayid")


def is_event_id(text: str) -> bool:
    """Whether `text` reads like an event's id."""
    return text.startswith(EVENT) and "/" not in text and "." not in text


def event_of(document: Any) -> Event:
    """The event whose document this is; what a hand-written one leaves out is filled in, the same way each time.

    Raises `Invalid` where it has no type, or its times are none.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("type"), str) or not document["type"]:
        raise Invalid("an event is a mapping with a `type` and `data`, as `nightbell events show --json` prints it")
    body = orjson.dumps(document.get("data"))
    family = document["type"].partition(".")[0]
    source = str(document.get("source") or family)
    team = str(document.get("team") or DEFAULT_TEAM)
    event_id = str(document.get("id") or digest_id(EVENT, team, source, body.decode()))
    received = _instant(document, "receivedtime", default=_instant(document, "time", default=0))
    texts: dict[str, Any] = {name: str(document[name]) for name in _TEXTS if document.get(name)}
    return Event(
        id=event_id,
        team=team,
        source=source,
        provider=str(document.get("provider") or family),
        family=family,
        type=document["type"],
        partitionkey=str(document.get("partitionkey") or f"{team}/{source}/{event_id}"),
        time_ms=_instant(document, "time", default=received),
        received_ms=received,
        traceparent=str(document.get("traceparent") or _TRACEPARENT),
        datacontenttype=str(document.get("datacontenttype") or "application/json"),
        body=body,
        flags=tuple(document.get("flags") or ()),
        **texts,
    )


def _instant(document: Mapping[str, Any], name: str, *, default: int) -> int:
    text = document.get(name)
    if not text:
        return default
    try:
        return ms_of(str(text))
    except ValueError as exc:
        raise Invalid(f"the event's `{name}` is no instant: it reads like 2026-11-21T10:00:00Z") from exc
