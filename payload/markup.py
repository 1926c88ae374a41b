"""XML as a JSON view, for patterns and templates to point into."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from schemas.errors import MalformedRequest

_DEEPEST = 200


def tree_of(body: bytes) -> dict[str, Any]:
    """The view of an XML document: `{root: …}`, local names only.

    An element with neither attributes nor children is its text; attributes are `@name`, text beside others is `#text`, and
    children of one name become an array.  DTDs and entities are refused.  Raises `MalformedRequest`.
    """
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as exc:
        raise MalformedRequest("the body is no well-formed XML without DTD") from exc
    return {_local(root.tag): _node(root, 0)}


def _node(element: Element, depth: int) -> Any:
    if depth > _DEEPEST:
        raise MalformedRequest("the XML is nested too deeply")
    text = (element.text or "").strip()
    found: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        _put(found, _local(child.tag), _node(child, depth + 1))
    if not found:
        return text
    if text:
        found["#text"] = text
    return found


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]
