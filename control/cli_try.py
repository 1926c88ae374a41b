"""Commands that try out a pattern or a view on an event: match, curate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.cli_base import AsJson, ask, bytes_of, json_lines, no, now_ms, quoted
from control.explained import explained
from control.output import Output, plain
from control.problems import Flawed
from schemas.config import is_name
from schemas.errors import Invalid

if TYPE_CHECKING:
    from router.pattern import Pattern

# The rooms' faces are imported where they are used: most commands start faster without them.
JsonLinesIn = Annotated[str | None, typer.Option("--jsonl", help="A file of JSON lines (- for stdin), answered line by line.")]
RULE_FIELDS = frozenset({"pattern", "filters", "cesql", "when", "extensions"})
EventIn = Annotated[
    str | None, typer.Option("--event", "-e", metavar="EVENT", help="A file, - for stdin, JSON in place, or evt_….")
]


def match(
    ctx: typer.Context,
    *,
    pattern: Annotated[str | None, typer.Option("--pattern", "-p", metavar="PATTERN", help="A file, or JSON in place.")] = None,
    subscription: Annotated[
        str | None,
        typer.Option(
            "--subscription",
            "-s",
            metavar="SUBSCRIPTION",
            help="Instead of a pattern: the name of a kept one, or one's JSON (in place or a file) with pattern, filters or "
            "cesql, and when.",
        ),
    ] = None,
    event: EventIn = None,
    jsonl: JsonLinesIn = None,
    as_json: AsJson = False,
) -> None:
    """Does this rule match this event, and if not, which field?  Exit 1 says that it does not."""
    out = Output(as_json=as_json)
    if jsonl is not None:
        _match_lines(jsonl)
        return
    if (pattern is None) == (subscription is None) or event is None:
        raise Invalid("give -p PATTERN or -s SUBSCRIPTION, and -e EVENT; or --jsonl FILE")
    from router.explain import explain as explain_match

    if pattern is not None:
        written: Mapping[str, Any] = {"pattern": _mapping(_exact(pattern, what="the pattern"), what="the pattern")}
    else:
        written = _written_rule(ctx, str(subscription))
    verdict = explain_match(_rule_of(written), _event_document(ctx, event), now_ms=now_ms()).as_json()
    out.document(verdict, lambda: explained(verdict))
    if not verdict["matched"]:
        raise no()


def _written_rule(ctx: typer.Context, source: str) -> dict[str, Any]:
    kept = is_name(source) and not Path(source).exists()
    found = ask(ctx, "GET", f"/v1/subscriptions/{quoted(source)}") if kept else _exact(source, what="the subscription")
    return {name: value for name, value in _mapping(found, what="the subscription").items() if name in RULE_FIELDS and value}


def _rule_of(written: Mapping[str, Any]) -> Pattern:
    from control.documents import read_rule
    from router.rule import compile_rule

    return compile_rule(read_rule(written))


def _match_lines(source: str) -> None:
    out = Output(as_json=True)
    for line in bytes_of(source).splitlines():
        if line.strip():
            out.json_line(_matched(line))


def _matched(line: bytes) -> dict[str, Any]:
    from router.values import parse_exact

    try:
        wanted = parse_exact(line)
        event = _mapping(wanted["event"], what="the event")
        rule = {name: value for name, value in wanted.items() if name in RULE_FIELDS}
        if rule.keys() & {"pattern", "filters", "cesql"}:
            return {"matched": _rule_of(rule).matches(event, now_ms=now_ms())}
    except Flawed as exc:
        return {"error": "; ".join(flaw.message for flaw in exc.flaws)}
    except Invalid as exc:
        return {"error": exc.detail}
    except (KeyError, TypeError, AttributeError):
        pass
    except (ValueError, RecursionError) as exc:
        return {"error": f"not JSON: {exc}"}
    return {"error": 'a line reads {"pattern": …, "event": …}'}


def _exact(source: str, *, what: str) -> Any:
    from router.values import parse_exact

    text = source.encode() if source.lstrip()[:1] == "{" else bytes_of(source)
    try:
        return parse_exact(text)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from exc


def _mapping(value: Any, *, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{what} is a JSON object")
    return value


def _event_document(ctx: typer.Context, source: str) -> dict[str, Any]:
    from control.eventfile import is_event_id

    if is_event_id(source):
        return _mapping(ask(ctx, "GET", f"/v1/events/{quoted(source)}"), what="the event")
    return _mapping(_exact(source, what="the event"), what="the event")


def curate(
    ctx: typer.Context,
    *,
    subscription: Annotated[
        str | None, typer.Option("--subscription", "-s", help="With this subscription's view and budget.")
    ] = None,
    view: Annotated[str | None, typer.Option("--view", help="With this view (JMESPath).")] = None,
    event: EventIn = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Under this budget.")] = None,
    jsonl: JsonLinesIn = None,
    invocation: Annotated[
        list[str] | None,
        typer.Option(
            "--invocation", "-i", help="What this invocation's agent was sent; given twice, the difference of the two."
        ),
    ] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Of the (first) invocation, this attempt.")] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Of an invocation: what was sent against what would be sent now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The exact bytes that the agent would get, its tokens, and what was left out; with neither, the type's default view."""
    from control.eventfile import is_event_id

    if invocation:
        from control.cli_sent import sent

        sent(ctx, invocation, attempt=attempt, with_now=diff, as_json=as_json)
        return
    if subscription is not None and view is not None:
        raise Invalid("give -s SUBSCRIPTION or --view, not both")
    if jsonl is None and event is not None and is_event_id(event):
        asked = {"event": event, "subscription": subscription, "view": view, "max_tokens": max_tokens}
        kept = ask(ctx, "POST", "/v1/curate", body={k: v for k, v in asked.items() if v is not None}, is_reading=True)
        Output(as_json=as_json).document(kept, lambda: context_shown(kept))
        return
    if subscription is not None:
        wanted = ask(ctx, "GET", f"/v1/subscriptions/{quoted(subscription)}").get("context") or {}
        view, max_tokens = wanted.get("view"), max_tokens or wanted.get("max_tokens")
    if jsonl is not None:
        _curate_lines(jsonl, view=view, max_tokens=max_tokens)
        return
    if event is None:
        raise Invalid("give -e EVENT, or --jsonl FILE")
    result = _curated(_event_document(ctx, event), view=view, max_tokens=max_tokens)
    Output(as_json=as_json).document(result, lambda: context_shown(result))


def _curated(document: Any, *, view: str | None, max_tokens: int | None) -> dict[str, Any]:
    from control.eventfile import event_of
    from curator.curate import curate as curate_event

    found = curate_event(event_of(document), document.get("data"), view=view, max_tokens=max_tokens, exact_raw=True)
    return {
        "context": orjson.Fragment(found.context),
        "tokens": found.tokens,
        "raw_tokens": found.raw_tokens,
        "left_out": list(found.left_out),
        "digest": found.digest,
    }


def _curate_lines(source: str, *, view: str | None, max_tokens: int | None) -> None:
    out = Output(as_json=True)
    for _, line, wrong in json_lines(source):
        if wrong or not isinstance(line, dict) or "event" not in line:
            out.json_line({"error": wrong or 'a line reads {"event": {…}}'})
            continue
        try:
            result = _curated(line["event"], view=view, max_tokens=max_tokens)
        except Invalid as exc:
            out.json_line({"error": exc.detail})
        else:
            out.json_line({name: value for name, value in result.items() if name != "digest"})


def context_shown(result: Mapping[str, Any]) -> RenderableType:
    """A context for people: its bytes as they are, then what it costs."""
    context = orjson.dumps(result["context"]).decode()
    parts: list[RenderableType] = [
        Text(plain(context)),
        Text(f"{result['tokens']} tokens; the whole body has {result['raw_tokens']}", style="dim"),
    ]
    if result["left_out"]:
        parts.append(Text(f"left out: {', '.join(map(plain, result['left_out']))}", style="dim"))
    if result.get("beside"):
        parts.append(Text(plain(orjson.dumps(result["beside"]).decode())))
    if result.get("verdict", "deliver") != "deliver":
        parts.append(Text(f"{result['verdict']}: {plain(result['reason'])}", style="yellow"))
    for sent in result.get("sent") or []:
        is_same = "the same" if sent["digest"] == result["digest"] else "another one"
        parts.append(Text(f"attempt {sent['attempt']} sent {is_same}, {sent['tokens']} tokens", style="dim"))
    return Group(*parts)
