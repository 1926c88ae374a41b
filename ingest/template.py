"""The small language of provider files: text with references in braces, compiled once at load.

`{header:X-Event}.{/action}` is text with two references; `{/title|before: - |lower}` pipes one through transforms; `{/a?}` may
be missing and is then empty.  `{{` and `}}` are braces.  The references and transforms are listed in `REFERENCES`,
`ingest.transforms` and `ingest.schemes.parts`; `ingest/providers/README.md` explains them to authors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jmespath
import jmespath.exceptions
import orjson

from ingest.inbound import Request
from ingest.schemes.parts import PARTS
from ingest.transforms import TRANSFORMS, Keyed
from payload.pointer import MISSING, Steps, reach, steps_of

Options = Mapping[str, Any]
_RELATIVE = re.compile(r"(\d{1,3})(#|/.*)")
Value = str | bytes | None


class Scope:
    """What a template sees: the request, the thing in view, and what verification found.

    `data` is the item of a batch, or the whole document.  `signature` has the named and numbered fields of a structured
    signature header, `claims` those of a proven token, `key` the newest secret for answers that are signed.
    """

    __slots__ = ("_data", "at", "claims", "key", "options", "request", "signature", "type")

    def __init__(self, request: Request, options: Options, *, data: Any = MISSING) -> None:
        self.request = request
        self.options = options
        self._data = data
        self.at: Steps = ()  # where the item lies in the document
        self.signature: Mapping[str, str] = {}
        self.claims: Mapping[str, Any] = {}
        self.key = b""
        self.type = ""

    @property
    def data(self) -> Any:
        """The item, or the whole document where there is none."""
        return self.request.document() if self._data is MISSING else self._data

    def over(self, data: Any, at: Steps = ()) -> Scope:
        """The same view of another item, which lies at `at`."""
        other = Scope(self.request, self.options, data=data)
        other.at = at
        other.signature, other.claims, other.key = self.signature, self.claims, self.key
        return other


Part = Callable[[Scope], Value]


class Template:
    """A compiled template."""

    __slots__ = ("_only", "_parts", "header_options", "headers", "keys", "pointers", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.headers: list[str] = []
        self.header_options: list[str] = []
        self.pointers: list[str] = []
        self.keys: list[str] = []  # of the item, without which there is no text
        self._parts = [part if isinstance(part, str) else self._compiled(*part) for part in _split(source)]
        self._only = self._parts[0] if len(self._parts) == 1 else None

    def text(self, scope: Scope) -> str | None:
        """The text, or None where a reference that must be there is missing."""
        if self._only is not None:
            return self._only if isinstance(self._only, str) else _as_text(self._only(scope))
        found: list[str] = []
        for part in self._parts:
            text = part if isinstance(part, str) else _as_text(part(scope))
            if text is None:
                return None
            found.append(text)
        return "".join(found)

    def is_there(self, scope: Scope) -> bool:
        """Whether every reference leads somewhere: for a lone pointer an object or an array counts too."""
        if len(self.pointers) == 1 and self.source == f"{{{self.pointers[0]}}}":
            found = reach(scope.data, steps_of(self.pointers[0]))
            return found is not MISSING and found is not None
        return self.text(scope) is not None

    def header_names(self, options: Options) -> list[str]:
        """The headers that it reads, in lower case, those that options name among them."""
        return [name.lower() for name in [*self.headers, *(str(options.get(option, "")) for option in self.header_options)]]

    def raw(self, scope: Scope) -> bytes | None:
        """The bytes, for signing: the body stays as it came, text is UTF-8."""
        if self._only is not None and not isinstance(self._only, str):
            return _as_bytes(self._only(scope))
        found = []
        for part in self._parts:
            raw = _as_bytes(part if isinstance(part, str) else part(scope))
            if raw is None:
                return None
            found.append(raw)
        return b"".join(found)

    def _compiled(self, reference: str, transforms: list[str]) -> Part:
        optional = reference.endswith("?")
        read = self._reading(reference.removesuffix("?"), optional=optional)
        steps = [_transform(text) for text in transforms]
        if not steps and not optional:
            return read

        def piped(scope: Scope) -> Value:
            value = read(scope)
            for plain, keyed in steps:
                if value is None:
                    break
                value = plain(value) if plain else keyed(value, scope.key) if keyed else value
            return "" if value is None and optional else value

        return piped

    def _reading(self, reference: str, *, optional: bool) -> Part:
        if reference.startswith("/"):
            self.pointers.append(reference)
            if not optional and (first := steps_of(reference)[0]) != "*":
                self.keys.append(first)
            return _pointer(reference)
        name, colon, argument = reference.partition(":")
        if name == "header" and argument:
            (self.header_options if argument.startswith("$") else self.headers).append(argument.removeprefix("$"))
        if maker := REFERENCES.get(name):
            if bool(colon) != (name not in _BARE):
                raise ValueError(f"{{{reference}}}: {name} takes {'no' if name in _BARE else 'an'} argument")
            return maker(argument)
        if part := PARTS.get(name):
            return lambda scope: part(scope.request, argument, scope.options)
        known = ", ".join(sorted({*REFERENCES, *PARTS}))
        raise ValueError(f"{{{reference}}}: no such reference; there are JSON pointers (/a/b) and {known}")


def _split(source: str) -> list[str | tuple[str, list[str]]]:
    found: list[str | tuple[str, list[str]]] = []
    literal, at = "", 0
    while at < len(source):
        two = source[at : at + 2]
        if two in {"{{", "}}"}:
            literal, at = literal + two[0], at + 2
        elif source[at] == "{":
            end = _closing(source, at)
            if literal:
                found.append(literal)
            found.append(_piped(source[at + 1 : end]))
            literal, at = "", end + 1
        else:
            literal, at = literal + source[at], at + 1
    if literal or not found:
        found.append(literal)
    return found


def _piped(inner: str) -> tuple[str, list[str]]:
    if inner.startswith("jmes:"):
        return inner, []
    reference, *transforms = inner.split("|")
    return reference, transforms


def _closing(source: str, start: int) -> int:
    depth = 0
    for at in range(start, len(source)):
        depth += {"{": 1, "}": -1}.get(source[at], 0)
        if depth == 0:
            return at
    raise ValueError(f"a brace is not closed: {source!r}")


def _transform(text: str) -> tuple[Callable[[Any], Value] | None, Keyed | None]:
    name, _, argument = text.partition(":")
    maker = TRANSFORMS.get(name)
    if maker is None:
        raise ValueError(f"|{name}: no such transform; there are {', '.join(sorted(TRANSFORMS))}")
    return maker(argument)


def _as_text(value: Any) -> str | None:
    if value.__class__ is str or value is None:
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else _scalar(value)


def _as_bytes(value: Any) -> bytes | None:
    if value.__class__ is bytes or value is None:
        return value
    text = value if isinstance(value, str) else _scalar(value)
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _scalar(value: Any) -> str | None:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value.__class__ is int:
        return str(value)
    return orjson.dumps(value).decode() if isinstance(value, float) else None


def _pointer(pointer: str) -> Part:
    steps = steps_of(pointer)
    is_plain = "*" not in steps

    def read(scope: Scope) -> Value:
        found = scope._data  # noqa: SLF001 - the property costs more than the look-up; one event has dozens of these
        if found is MISSING:
            found = scope.data
        for step in steps:
            if found.__class__ is dict and is_plain:
                found = found.get(step)
            elif found is None:
                return None
            else:
                found = reach(scope.data, steps)
                break
        return found if found.__class__ is str else None if found is MISSING else _scalar(found)

    return read


def _root(pointer: str) -> Part:
    steps = steps_of(pointer)

    def read(scope: Scope) -> Value:
        found = reach(scope.request.document(), steps)
        return None if found is MISSING else found if isinstance(found, str) else _scalar(found)

    return read


def _up(text: str) -> Part:
    """A relative JSON pointer: so many levels above the item, then on; or, with #, the name that it has there."""
    parts = _RELATIVE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{{up:{text}}}: write levels and a pointer (2/field), or levels and # for the name (1#)")
    levels, steps = int(parts[1]), steps_of(parts[2].removesuffix("#"))
    wants_name = parts[2] == "#"

    def read(scope: Scope) -> Value:
        if levels >= len(scope.at):
            return None
        if wants_name:
            return scope.at[-1 - levels]
        found = reach(scope.request.document(), (*scope.at[: len(scope.at) - levels], *steps))
        return None if found is MISSING else found if isinstance(found, str) else _scalar(found)

    return read


def _header(name: str) -> Part:
    if name.startswith("$"):
        option = name[1:]
        return lambda scope: scope.request.headers.get(str(scope.options.get(option, "")).lower())
    low = name.lower()
    return lambda scope: scope.request.headers.get(low)


def _named(pairs: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in pairs if key == name), None)


def _query(name: str) -> Part:
    if name.startswith("$"):
        return lambda scope: _named(scope.request.query(), str(scope.options.get(name[1:], "")))
    return lambda scope: _named(scope.request.query(), name)


def _option(name: str) -> Part:
    def read(scope: Scope) -> Value:
        value = scope.options.get(name)
        return None if value is None else ",".join(map(str, value)) if isinstance(value, list) else _as_text(value)

    return read


def _claim(name: str) -> Part:
    return lambda scope: _as_text(scope.claims.get(name))


def _expression(text: str) -> Part:
    try:
        compiled = jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as exc:
        raise ValueError(f"{{jmes:{text}}}: {exc}") from exc

    def read(scope: Scope) -> Value:
        try:
            found = compiled.search(scope.data)
        except jmespath.exceptions.JMESPathError:
            return None
        return found if isinstance(found, str) else None if found is None else _scalar(found)

    return read


REFERENCES: dict[str, Callable[[str], Part]] = {
    "body": lambda _: lambda scope: scope.request.body,
    "method": lambda _: lambda scope: scope.request.method,
    "url": lambda _: lambda scope: scope.request.url,
    "path": lambda _: lambda scope: scope.request.path,
    "query_string": lambda _: lambda scope: scope.request.query_string,
    "secret": lambda _: lambda scope: scope.key,
    "type": lambda _: lambda scope: scope.type or None,
    "content": lambda _: lambda scope: scope.request.content(),
    "header": _header,
    "query": _query,
    "form": lambda name: lambda scope: _named(scope.request.form(), name),
    "option": _option,
    "source": lambda field: lambda scope: scope.options.get(f"source:{field}"),
    "sig": lambda name: lambda scope: scope.signature.get(name),
    "claim": _claim,
    "root": _root,
    "up": _up,
    "jmes": _expression,
}
_BARE = frozenset({"body", "method", "url", "path", "query_string", "secret", "type", "content"})
