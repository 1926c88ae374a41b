"""The story of one event, drawn for somebody who was woken at two in the morning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from control.explained import why_not
from control.output import plain
from schemas.times import ms_of

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_GOOD, _BAD, _OPEN = "green", "red", "yellow"
_STYLES = {
    "done": _GOOD,
    "declined": _GOOD,
    "buried": _BAD,
    "expired": _BAD,
    "canceled": _BAD,
    "superseded": "dim",
    "queued": _OPEN,
    "running": _OPEN,
    "accepted": _OPEN,
    "waiting": _OPEN,
}


def timeline(trace: Mapping[str, Any]) -> RenderableType:
    """The trace as lines: the event, each step with its offset from the first, then each invocation with its attempts."""
    event = trace["event"]
    begin_ms = ms_of(event["receivedtime"])
    lines: list[Text] = [*_head(event), Text("")]
    lines += [_line(step.get("at"), begin_ms, step.get("step"), step.get("detail")) for step in _arrival(trace)]
    for invocation in trace.get("invocations") or []:
        lines += [Text(""), *_invocation(invocation, begin_ms)]
    idle = [miss for miss in trace.get("misses") or [] if miss.get("matched") and miss.get("later")]
    if not trace.get("invocations") and not idle:
        lines += [Text(""), Text("no subscription matched", style=_OPEN)]
    if idle:
        lines += [Text(""), Text("matched, and woke nobody", style="bold"), *_idle(idle)]
    misses = [miss for miss in trace.get("misses") or [] if not miss.get("matched")]
    if misses:
        lines += [Text(""), Text("did not match", style="bold"), *_misses(misses)]
    return Group(*lines)


def _arrival(trace: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    # The steps of an invocation stand under its own head, with its attempts.
    return [step for step in trace.get("steps") or [] if not step.get("invocation")]


def since(at: str | None, begin_ms: int) -> str:
    """How long after `begin_ms` it was: `+0 ms`, `+1.2 s`, `+3 m 20 s`."""
    if not at:
        return ""
    elapsed = ms_of(at) - begin_ms
    sign, elapsed = ("-", -elapsed) if elapsed < 0 else ("+", elapsed)
    return sign + span(elapsed)


def span(elapsed_ms: float) -> str:
    """A span for people."""
    if elapsed_ms < 1000:  # noqa: PLR2004 - below a second
        return f"{elapsed_ms:.0f} ms"
    if elapsed_ms < _MINUTE_MS:
        return f"{elapsed_ms / 1000:.1f} s"
    whole_s = int(elapsed_ms // 1000)
    if elapsed_ms < _HOUR_MS:
        return f"{whole_s // 60} m {whole_s % 60} s"
    if elapsed_ms < _DAY_MS:
        return f"{whole_s // 3600} h {whole_s % 3600 // 60} m"
    return f"{whole_s // 86400} d {whole_s % 86400 // 3600} h"


def _head(event: Mapping[str, Any]) -> Iterator[Text]:
    yield Text(f"{event['id']}  {plain(event.get('type'))}", style="bold")
    for label, names in (("", ("summary",)), ("about", ("subject", "url")), ("from", ("source", "actor", "deliveryid"))):
        found = [plain(event[name]) for name in names if event.get(name)]
        if found:
            yield Text(f"  {label + ' ' if label else ''}{' · '.join(found)}")
    yield Text(f"  received {event['receivedtime']}   happened {event.get('time', '')}", style="dim")


def _line(at: str | None, begin_ms: int, what: Any, detail: Any, *, style: str = "", indent: int = 0) -> Text:
    line = Text(f"{since(at, begin_ms):>12}  ", style="dim")
    line.append(" " * indent + plain(what), style=style or "default")
    if detail:
        line.append(f"  {plain(detail)}", style="default")
    return line


def _invocation(invocation: Mapping[str, Any], begin_ms: int) -> Iterator[Text]:
    state = str(invocation.get("state") or "")
    title = Text(f"{invocation.get('subscription')} → {invocation.get('agent')}  ", style="bold")
    title.append(state, style=_STYLES.get(state, "default"))
    if invocation.get("reason"):
        title.append(f" ({plain(invocation['reason'])})")
    title.append(f"  {invocation.get('id')}", style="dim")
    yield title
    yield _line(invocation.get("created_at"), begin_ms, "queued", _lane(invocation))
    falls = list(invocation.get("fallbacks") or [])
    for attempt in invocation.get("attempts") or []:
        while falls and falls[0]["attempts"] < attempt["number"]:
            yield _fall(falls.pop(0), begin_ms)
        yield _attempt(attempt, begin_ms)
    for fall in falls:
        yield _fall(fall, begin_ms)
    if isinstance(run := invocation.get("run"), Mapping):
        yield from _run(run, begin_ms)
    if state == "waiting" and invocation.get("due_at"):
        yield _line(invocation["due_at"], begin_ms, "next attempt is due", invocation.get("reason"), style=_OPEN)
    elif invocation.get("ended_at"):
        yield _line(invocation["ended_at"], begin_ms, state, invocation.get("reason"), style=_STYLES.get(state, ""))


def _lane(invocation: Mapping[str, Any]) -> str:
    ahead = invocation.get("ahead")
    key = f"key {plain(invocation.get('ordering_key'))}" if invocation.get("ordering_key") else ""
    return f"{key}, behind {ahead}" if ahead else key


def _attempt(attempt: Mapping[str, Any], begin_ms: int) -> Text:
    outcome = str(attempt.get("outcome") or "under way")
    parts = [outcome]
    if attempt.get("status"):
        parts.append(f"HTTP {attempt['status']}")
    if attempt.get("duration_ms") is not None:
        parts.append(f"took {span(attempt['duration_ms'])}")
    if attempt.get("tokens"):
        parts.append(f"{attempt['tokens']} tokens")
    if attempt.get("error"):
        parts.append(plain(attempt["error"]))
    style = _GOOD if outcome in {"delivered", "accepted"} else _OPEN if outcome == "under way" else _BAD
    return _line(attempt.get("started_at"), begin_ms, f"attempt {attempt.get('number')}", ", ".join(parts), style=style)


def _run(run: Mapping[str, Any], begin_ms: int) -> Iterator[Text]:
    if run.get("began_at"):
        beats = run.get("heartbeats") or 0
        seen = f"{beats} heartbeat{'s' * (beats != 1)}" + (f", worker {plain(run['worker'])}" if run.get("worker") else "")
        until = f", lease until {run['lease_until']}" if not run.get("ended_at") else ""
        yield _line(run["began_at"], begin_ms, f"run {run.get('attempt')}", seen + until, style=_OPEN)
    for name in ("tried", "blocked", "next"):
        if run.get(name):
            yield _line(run.get("status_at"), begin_ms, name, run[name], indent=2)
    if run.get("checkpoint_at"):
        yield _line(run["checkpoint_at"], begin_ms, "checkpoint", "", indent=2)
    if run.get("signal"):
        yield _line(None, begin_ms, "asked to", run["signal"], style=_OPEN, indent=2)
    if run.get("ended_at"):
        yield _line(run["ended_at"], begin_ms, f"run {run.get('attempt')} {run.get('verdict')}", run.get("note"))


def _fall(fall: Mapping[str, Any], begin_ms: int) -> Text:
    who = {"wait": "one more try by", "agent": "to", "notify": "a person is told by", "answer": "a person may answer"}
    kind = str(fall.get("kind"))
    whom = "" if kind == "answer" else f" {plain(fall.get('agent'))}"
    return _line(fall.get("at"), begin_ms, "fallback", f"{who.get(kind, kind)}{whom}: {plain(fall.get('reason'))}", style=_OPEN)


def _misses(misses: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    for miss in misses:
        yield Text(f"  {plain(miss.get('subscription'))}: {why_not(miss)}")


def _idle(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    for verdict in verdicts:
        for later in verdict["later"]:
            yield Text(f"  {plain(verdict.get('subscription'))}: {plain(later.get('step'))}, {plain(later.get('reason'))}")
