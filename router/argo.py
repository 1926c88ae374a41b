"""An Argo Events dependency's filters as a pattern.  https://argoproj.github.io/argo-events/sensors/filters/intro/"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from router.imported import Report
from schemas.errors import Invalid

_CONTEXT: Final = frozenset({"type", "source", "subject"})
_PLAIN = re.compile(r"[^\\.+*?()|\[\]{}^$]*")


def argo_pattern(dependency: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The subscription fields (`pattern`, perhaps `extensions`) of a dependency; what has no counterpart goes to the report.

    Raises `Invalid` where nothing is left to match by, or where leaving a filter out would let other events in.
    """
    filters = dependency.get("filters") or {}
    for name in ("exprs", "script", "time"):
        if filters.get(name):
            raise Invalid(f"filters.{name} has no counterpart; write it as `when` (CEL) by hand")
    if filters.get("filtersLogicalOperator") == "or":
        raise Invalid("filtersLogicalOperator: or over several kinds of filter has no counterpart; write `$or` by hand")
    if dependency.get("transform"):
        report.lost("transform: views shape what an agent gets")
    pattern: dict[str, Any] = {}
    for name, value in (filters.get("context") or {}).items():
        if name not in _CONTEXT:
            raise Invalid(f"filters.context.{name} has no counterpart")
        pattern[name] = [value]
    extensions: set[str] = set()
    fields = [_field(one, extensions, report) for one in filters.get("data") or ()]
    if filters.get("dataLogicalOperator") == "or" and len(fields) > 1:
        pattern["$or"] = [_nested(path, alternatives, {}) for path, alternatives in fields]
    else:
        for path, alternatives in fields:
            _nested(path, alternatives, pattern)
    if not pattern:
        raise Invalid("it has no filter: it takes every event of its source, which is not carried over unasked")
    source, event = dependency.get("eventSourceName"), dependency.get("eventName")
    report.note(f"event source {source}/{event}: add `source` or `type` to the pattern, so that it is found quickly")
    return {"pattern": pattern, "extensions": sorted(extensions)} if extensions else {"pattern": pattern}


def _nested(path: list[str], alternatives: list[Any], into: dict[str, Any]) -> dict[str, Any]:
    place = into
    for name in path[:-1]:
        place = place.setdefault(name, {})
    if path[-1] in place:
        raise Invalid(f"{'.'.join(path)}: two filters on one path have no counterpart; write it as `when` (CEL) by hand")
    place[path[-1]] = alternatives
    return into


def _field(written: Mapping[str, Any], extensions: set[str], report: Report) -> tuple[list[str], list[Any]]:
    where = str(written.get("path", ""))
    path = where.split(".")
    if path[0] != "body" or len(path) < 2 or not re.fullmatch(r"[\w.-]+", where):  # noqa: PLR2004  # body and a name at least
        raise Invalid(f"filters.data path {where!r}: only plain paths below body are carried over")
    read = {"string": _strings, "number": _numbers, "bool": _booleans}.get(str(written.get("type")))
    if read is None:
        raise Invalid(f"filters.data type {written.get('type')!r} is not known")
    if written.get("template"):
        raise Invalid("filters.data template has no counterpart")
    comparator = str(written.get("comparator") or "=")
    values = [str(value) for value in written.get("value") or ()]
    return ["data", *path[1:]], read(values, comparator, where, extensions, report)


def _strings(values: list[str], comparator: str, where: str, extensions: set[str], report: Report) -> list[Any]:
    if comparator == "!=":
        if not all(map(_PLAIN.fullmatch, values)):
            raise Invalid(f"{where}: != with a regular expression has no counterpart")
        report.note(f"{where}: a string value is a regular expression in Argo; taken as the exact string")
        return [{"anything-but": values}]
    found: list[Any] = []
    for value in values:
        anchored = value.startswith("^") and value.endswith("$") and not value.endswith("\\$")
        inner = value[1:-1] if anchored else value
        if _PLAIN.fullmatch(inner):
            if not anchored:
                report.note(f"{where}: {value!r} is a regular expression in Argo, found anywhere; taken as the exact string")
            found.append(inner)
        else:
            extensions.add("regex")
            found.append({"regex": inner if anchored else f"(?s:.*)(?:{value})(?s:.*)"})
    return found


def _numbers(values: list[str], comparator: str, where: str, _extensions: set[str], _report: Report) -> list[Any]:
    try:
        numbers = [int(value) if re.fullmatch(r"-?\d+", value) else float(value) for value in values]
    except ValueError as exc:
        raise Invalid(f"{where}: {exc}") from exc
    if comparator == "!=":
        return [{"anything-but": numbers}]
    if comparator == "=":
        return list(numbers)
    return [{"numeric": [comparator, number]} for number in numbers]


def _booleans(values: list[str], comparator: str, where: str, _extensions: set[str], _report: Report) -> list[Any]:
    if comparator != "=" or not {value.lower() for value in values} <= {"true", "false"}:
        raise Invalid(f"{where}: a bool filter is true or false with =")
    return [value.lower() == "true" for value in values]
