"""Rules of other systems as subscriptions: EventBridge (JSON, CloudFormation), Knative Triggers, Argo Events sensors.

What cannot be carried over is reported, never guessed: a subscription wakes for the events that
the rule named, or the report says how it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml

from router.argo import argo_pattern
from router.filters import compile_filters
from router.imported import Imported, Report
from router.pattern import compile_pattern, parse_pattern_text
from schemas.errors import Invalid

Document = Mapping[str, Any]


class _Lenient(yaml.SafeLoader):
    """YAML whose unknown tags (CloudFormation's !Sub, !Ref …) give what stands behind them, marked."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {f"!{tag}": loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {f"!{tag}": loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {f"!{tag}": loader.construct_mapping(node, deep=True)}


_Lenient.add_multi_constructor("!", _tagged)


def import_rules(text: str, *, agent: str = "imported") -> Imported:
    """The subscriptions of the rules in a YAML or JSON text (several documents allowed), with a report.

    The kind of each rule is told by its form.  Raises `Invalid` where the text cannot be read or holds no rule that is known.
    """
    try:
        documents = [document for document in yaml.load_all(text, _Lenient) if document]  # a SafeLoader with inert tags
    except yaml.YAMLError as exc:
        raise Invalid(f"the file is neither YAML nor JSON: {' '.join(str(exc).split())}") from exc
    into = Imported(agent)
    for document in _each(documents):
        reader = next((read for knows, read in _READERS if knows(document)), None)
        if reader is None:
            into.left_out(_title(document), "no EventBridge rule, CloudFormation template, Knative Trigger or Argo Sensor")
        else:
            reader(document, into)
    if not into.reports:
        raise Invalid("the file holds no rule")
    return into


def _each(documents: list[Any]) -> Iterator[Document]:
    for document in documents:
        if isinstance(document, list):
            yield from _each(document)
        elif isinstance(document, Mapping) and isinstance(document.get("Rules"), list):  # what `aws events list-rules` prints
            yield from _each(document["Rules"])
        elif isinstance(document, Mapping) and document.get("kind") == "List":
            yield from _each(document.get("items") or [])
        elif isinstance(document, Mapping):
            yield document


def _title(document: Document) -> str:
    metadata = document.get("metadata")
    inner = metadata.get("name") if isinstance(metadata, Mapping) else None
    return str(document.get("Name") or inner or document.get("kind") or "a document")


# ── EventBridge ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

# EventBridge's envelope in our names.
_RENAMED: Final[Mapping[str, str]] = {"detail": "data", "detail-type": "type", "id": "id", "time": "time"}
_DROPPED: Final = frozenset({"account", "region", "resources", "version"})


def _read_eventbridge(document: Document, into: Imported) -> None:
    _add_rule(str(document.get("Name") or "rule"), document, into)


def _read_template(document: Document, into: Imported) -> None:
    for logical, resource in document["Resources"].items():
        if isinstance(resource, Mapping) and resource.get("Type") == "AWS::Events::Rule":
            properties = resource.get("Properties") or {}
            name = properties.get("Name")
            _add_rule(name if isinstance(name, str) else str(logical), properties, into)


def _add_rule(name: str, rule: Document, into: Imported) -> None:
    report = into.report(name)
    written = rule.get("EventPattern")
    if rule.get("ScheduleExpression"):
        report.lost("ScheduleExpression: schedules are no webhooks")
    if not written:
        into.drop(report, "it has no EventPattern")
        return
    try:
        pattern = parse_pattern_text(written) if isinstance(written, str) else dict(written)
        translated = _our_envelope(pattern, report)
        compile_pattern(translated)
    except Invalid as exc:
        into.drop(report, exc.detail)
        return
    for target in rule.get("Targets") or ():
        report.lost(f"target {target.get('Id') or target.get('Arn')}: name an agent instead")
    into.add(report, {"pattern": translated}, paused=rule.get("State") == "DISABLED")


def _our_envelope(pattern: Document, report: Report) -> dict[str, Any]:
    if intrinsic := _intrinsic(pattern):
        raise Invalid(f"{intrinsic}: a CloudFormation function has no value here; write the value in its place")
    found: dict[str, Any] = {}
    for name, value in pattern.items():
        if name == "$or" and isinstance(value, list):
            found[name] = [_our_envelope(option, report) if isinstance(option, Mapping) else option for option in value]
        elif name in _DROPPED:
            report.lost(f"{name}: our events have no such attribute, so more events match")
        else:
            found[_RENAMED.get(name, name)] = value
            if name in {"source", "detail-type"}:
                report.note(f"{name}: check that its values are ours ({_RENAMED.get(name, name)})")
    return found


def _intrinsic(value: Any) -> str | None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(name, str) and (name.startswith(("!", "Fn::")) or name == "Ref"):
                return name
            if deeper := _intrinsic(inner):
                return deeper
    if isinstance(value, list):
        return next((deeper for inner in value if (deeper := _intrinsic(inner))), None)
    return None


# ── Knative ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_trigger(document: Document, into: Imported) -> None:
    report = into.report(_title(document))
    spec = document.get("spec") or {}
    if spec.get("broker"):
        report.note(f"broker {spec['broker']}: all our events are on one bus")
    for name in ("delivery", "subscriber"):
        if spec.get(name):
            report.lost(f"{name}: say it on the agent and in the subscription's `retry`")
    filters = [_our_dialects(one) for one in spec.get("filters") or ()]
    attributes = (spec.get("filter") or {}).get("attributes") or {}
    # A Trigger that has both is judged by `filters` alone; an empty attribute means any value.
    exact = {name: value for name, value in attributes.items() if value}
    if not filters and exact:
        filters = [{"exact": exact}]
    if not filters:
        into.drop(report, "it has no filter: it takes every event, which is not carried over unasked")
        return
    try:
        compile_filters(filters)
    except Invalid as exc:
        into.drop(report, exc.detail)
        return
    into.add(report, {"filters": filters}, paused=False)


def _our_dialects(written: Any) -> Any:
    if not isinstance(written, Mapping):
        return written
    found: dict[str, Any] = {}
    for name, value in written.items():
        if name in {"all", "any"} and isinstance(value, list):
            found[name] = [_our_dialects(one) for one in value]
        elif name == "not":
            found[name] = _our_dialects(value)
        else:
            found["sql" if name == "cesql" else name] = value
    return found


# ── Argo Events ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_sensor(document: Document, into: Imported) -> None:
    spec = document.get("spec") or {}
    for dependency in spec.get("dependencies") or ():
        report = into.report(f"{_title(document)}-{dependency.get('name', 'dependency')}")
        try:
            fields = argo_pattern(dependency, report)
            compile_pattern(fields["pattern"], extensions=frozenset(fields.get("extensions", ())))
        except Invalid as exc:
            into.drop(report, exc.detail)
            continue
        for trigger in spec.get("triggers") or ():
            template = trigger.get("template") or {}
            if template.get("conditions"):
                report.lost(f"trigger {template.get('name')}: conditions join several dependencies; each wakes by itself here")
        into.add(report, fields, paused=False)


_READERS: Final[tuple[tuple[Callable[[Document], bool], Callable[[Document, Imported], None]], ...]] = (
    (lambda document: isinstance(document.get("Resources"), Mapping), _read_template),
    (lambda document: "EventPattern" in document or "ScheduleExpression" in document, _read_eventbridge),
    (lambda document: document.get("kind") == "Trigger", _read_trigger),
    (lambda document: document.get("kind") == "Sensor", _read_sensor),
)
