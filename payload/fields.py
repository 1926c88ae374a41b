"""Form and multipart bodies as JSON views."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from schemas.errors import MalformedRequest

# It warns of every byte that it does not like in a stranger's body; the refusal says it once.
logging.getLogger("python_multipart.multipart").setLevel(logging.CRITICAL)

MAX_FIELDS = 10_000
_MAX_PARTS = 1_000

Pairs = list[tuple[str, str]]


def pairs_of(text: bytes | str) -> Pairs:
    """The fields of an urlencoded text, decoded, in order.  Raises `MalformedRequest` beyond MAX_FIELDS."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    try:
        return parse_qsl(plain, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError as exc:
        raise MalformedRequest("the form has too many fields") from exc


def gathered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fields by name; a name that stands several times has an array."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def parts_of(body: bytes, content_type: str) -> list[tuple[str, Any]]:
    """The fields of a multipart body; a file is its name, size and type, never its bytes.  Raises `MalformedRequest`."""
    # As bytes: text is read as Latin-1, and a header may hold any character of the sender's.
    _, options = parse_options_header(content_type.encode("utf-8", "surrogatepass"))
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedRequest("the multipart body has no boundary")
    collected = _Collector()
    try:
        parser = MultipartParser(boundary, collected.callbacks())  # type: ignore[arg-type]  # its TypedDict of callbacks
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as exc:
        raise MalformedRequest("the multipart body cannot be read") from exc
    return collected.fields


class _Collector:
    """Gathers parts as the parser announces them."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, Any]] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._chunks: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._chunks.append(data[start:end]),
            "on_part_end": self._end,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
        }

    def _begin(self) -> None:
        if len(self.fields) >= _MAX_PARTS:
            raise MalformedRequest("the multipart body has too many parts")
        self._headers, self._chunks = {}, []

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        content = b"".join(self._chunks)
        filename = options.get(b"filename")
        if filename is None:
            self.fields.append((name, content.decode("utf-8", "replace")))
            return
        kind = self._headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
        self.fields.append((name, {"filename": filename.decode("utf-8", "replace"), "size": len(content), "type": kind}))
