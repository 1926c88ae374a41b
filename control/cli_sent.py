"""What agents were sent, shown and compared: `curate --invocation`."""

from __future__ import annotations

from difflib import unified_diff
from typing import Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.cli_base import ask, no, quoted
from control.output import Output, plain
from schemas.errors import Invalid, NotFound

NOW = "as it would be made now"
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def sent(ctx: typer.Context, invocations: list[str], *, attempt: int | None, with_now: bool, as_json: bool) -> None:
    """One invocation: what each attempt sent; with `with_now`, against what would be sent now.  Two: one against the other.

    A comparison that finds differences exits with 1.
    """
    if len(invocations) > 2 or (len(invocations) == 2 and with_now):  # noqa: PLR2004 - a comparison has two sides
        raise Invalid("give one invocation, with --diff to compare it with now; or two, to compare them")
    first = _kept(ctx, invocations[0], attempt)
    if len(invocations) == 1 and not with_now:
        shown = first[-1:] if attempt is not None else first
        Output(as_json=as_json).document({"items": shown}, lambda: Group(*[_told(each) for each in shown]))
        return
    before = _with_context(first, invocations[0])
    left, after = (f"{invocations[0]} attempt {before['attempt']}", _members(before["context"]))
    if with_now:
        right, then = NOW, _now(ctx, invocations[0])
    else:
        other = _with_context(_kept(ctx, invocations[1], None), invocations[1])
        right, then = f"{invocations[1]} attempt {other['attempt']}", _members(other["context"])
    lines = list(unified_diff(_lines(after), _lines(then), left, right, lineterm=""))
    document = {"same": not lines, "before": left, "after": right, "diff": lines}
    Output(as_json=as_json).document(document, lambda: _compared(lines))
    if lines:
        raise no()


def _kept(ctx: typer.Context, invocation: str, attempt: int | None) -> list[dict[str, Any]]:
    found = ask(ctx, "GET", f"/v1/invocations/{quoted(invocation)}/sent")["items"]
    wanted: list[dict[str, Any]] = [each for each in found if attempt in {None, each["attempt"]}]
    if not wanted:
        raise NotFound(f"{invocation} has no attempt{'' if attempt is None else f' {attempt}'} yet")
    return wanted


def _with_context(attempts: list[dict[str, Any]], invocation: str) -> dict[str, Any]:
    """The last attempt whose context is kept."""
    for each in reversed(attempts):
        if each["context"]:
            return dict(each)
    raise NotFound(f"what {invocation} sent is not kept")


def _members(context: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(f'{{"context":{context}}}')
    return found


def _now(ctx: typer.Context, invocation: str) -> dict[str, Any]:
    work = ask(ctx, "GET", f"/v1/invocations/{quoted(invocation)}")
    asked = {"event": work["event_id"], "subscription": work["subscription"]}
    made = ask(ctx, "POST", "/v1/curate", body=asked, is_reading=True)
    return {"context": made["context"], **made["beside"]}


def _lines(members: dict[str, Any]) -> list[str]:
    return orjson.dumps(members, option=orjson.OPT_INDENT_2).decode().split("\n")


def _told(each: dict[str, Any]) -> RenderableType:
    outcome = each["outcome"] or "under way"
    head = f"attempt {each['attempt']}: {outcome}, {each['bytes_sent']} bytes sent, context {each['digest'][:16]}"
    body = plain(each["body"]) if each["is_kept"] else "(not kept)"
    parts = [Text(head, style="dim"), Text(body)]
    if each["answer"]:
        parts += [Text(f"answered {each['status']}", style="dim"), Text(plain(each["answer"]))]
    return Group(*parts)


def _compared(lines: list[str]) -> RenderableType:
    if not lines:
        return Text("the same")
    return Group(*[Text(plain(line), style=_STYLES.get(line[:1], "")) for line in lines])
