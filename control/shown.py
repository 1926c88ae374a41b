"""What callers of the API see of the things that the store keeps: plain JSON, never a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from control.asked import Page, read_cursor, write_cursor
from schemas.config import DEFAULT_TEAM
from schemas.times import iso
from store.agents import AgentRow
from store.audit import AuditLine
from store.events import EventRow, RejectedRow
from store.fallbacks import FallbackRow
from store.keys import KeyRow
from store.progress import Progress
from store.refusals import KeptRefusal
from store.runs import RunRow
from store.sent import SentRow
from store.sources import SourceRow
from store.subscriptions import SubscriptionRow
from store.work import AttemptRow, InvocationRow


class HasSeq(Protocol):
    """A row with a number."""

    @property
    def seq(self) -> int:
        """Its number."""
        ...


Row = TypeVar("Row")
Numbered = TypeVar("Numbered", bound=HasSeq)


def moment(at_ms: int) -> str | None:
    """An instant for people; None for 0, which is none."""
    return iso(at_ms) if at_ms else None


def inbound_url(ingest_url: str, team: str, source: str) -> str:
    """The address to give to the vendor."""
    path = source if team == DEFAULT_TEAM else f"{team}/{source}"
    return f"{ingest_url.rstrip('/')}/in/{path}"


def source_json(row: SourceRow, *, ingest_url: str) -> dict[str, Any]:
    """A source."""
    return {
        "name": row.name,
        "uid": row.uid,
        "url": inbound_url(ingest_url, row.team, row.name),
        **row.public,
        "managed_by": row.managed_by,
        "created_at": iso(row.created_ms),
        "updated_at": iso(row.updated_ms),
    }


def agent_json(row: AgentRow) -> dict[str, Any]:
    """An agent."""
    return {
        "name": row.name,
        "uid": row.uid,
        **row.public,
        "state": "held" if row.hold else "live",
        "hold_reason": row.hold,
        "hold_until": moment(row.hold_until_ms),
        "managed_by": row.managed_by,
        "created_at": iso(row.created_ms),
        "updated_at": iso(row.updated_ms),
    }


def subscription_json(row: SubscriptionRow) -> dict[str, Any]:
    """A subscription; `state` is today's, `wanted_state` what was asked for."""
    public = row.public
    return {
        "name": row.name,
        "uid": row.uid,
        **public,
        "state": row.state,
        "wanted_state": public["state"],
        "disabled_reason": row.disabled_reason,
        "generation": row.generation,
        "managed_by": row.managed_by,
        "created_at": iso(row.created_ms),
        "updated_at": iso(row.updated_ms),
    }


def event_json(row: EventRow, states: Mapping[str, int]) -> dict[str, Any]:
    """An event in a list: its envelope, and what became of it."""
    return {
        **json.loads(row.envelope),
        "admitted_at": iso(row.admitted_ms),
        "invocations": row.invocations,
        "states": dict(states),
    }


def invocation_json(row: InvocationRow) -> dict[str, Any]:
    """An invocation in a list."""
    return {
        "id": row.id,
        "event_id": row.event_id,
        "subscription": row.subscription,
        "agent": row.agent,
        "state": row.state,
        "reason": row.reason,
        "outcome": row.outcome,
        "attempts": row.attempts,
        "ordering_key": row.ordering_key,
        "order": row.ordering,
        "generation": row.generation,
        "replay_id": row.replay_id,
        "created_at": iso(row.created_ms),
        "due_at": moment(row.due_ms) if not row.ended_ms and row.due_ms < 1 << 60 else None,
        "ended_at": moment(row.ended_ms),
    }


def fallback_json(row: FallbackRow) -> dict[str, Any]:
    """A link of a fallback chain that an invocation went to."""
    return {
        "at": iso(row.at_ms),
        "step": row.step,
        "kind": row.kind,
        "agent": row.agent,
        "attempts": row.attempts,
        "due_at": moment(row.due_ms),
        "reason": row.reason,
    }


def attempt_json(row: AttemptRow) -> dict[str, Any]:
    """An attempt; without an outcome it is under way."""
    return {
        "number": row.number,
        "started_at": iso(row.started_ms),
        "ended_at": moment(row.ended_ms),
        "deadline_at": moment(row.deadline_ms),
        "outcome": row.outcome,
        "status": row.status,
        "error": row.error,
        "answer": (row.answer or b"").decode("utf-8", "replace"),
        "duration_ms": row.duration_ms if row.ended_ms else None,
        "sent": bool(row.sent),
        "bytes_sent": row.bytes_sent,
        "tokens": row.tokens,
        "context_digest": row.context_digest,
        "owner": row.owner,
    }


def sent_json(row: AttemptRow, sent: SentRow) -> dict[str, Any]:
    """What an attempt sent and got; `context` is the context with what stands beside it, as in the body."""
    body = sent.body.body if sent.body else b""
    return {
        "attempt": row.number,
        "outcome": row.outcome,
        "status": row.status,
        "digest": row.context_digest,
        "bytes_sent": row.bytes_sent,
        "is_kept": sent.body is not None,
        "body": body.decode("utf-8", "replace"),
        "context": sent.body.context.decode("utf-8", "replace") if sent.body else "",
        "answer": (row.answer or b"").decode("utf-8", "replace"),
    }


def run_json(row: RunRow | None) -> dict[str, Any] | None:
    """The last run of an invocation; None where it had none, and nothing was kept of it."""
    if row is None:
        return None
    is_run = bool(row.begun_ms)
    return {
        "attempt": row.number,
        "began_at": moment(row.begun_ms),
        "is_fetched": not row.waiting,
        "lease_until": moment(row.lease_ms) if is_run else None,
        "deadline_at": moment(row.ends_ms) if is_run else None,
        "heartbeats": row.beats,
        "heartbeat_at": moment(row.beat_ms),
        "signal": row.signal,
        "worker": row.worker,
        "checkpoint": json.loads(row.checkpoint) if row.checkpoint else None,
        "checkpoint_at": moment(row.checkpoint_ms),
        "tried": row.tried,
        "blocked": row.blocked,
        "next": row.next,
        "status_at": moment(row.status_ms),
        "ended_at": moment(row.ended_ms),
        "verdict": row.verdict,
        "note": row.note,
        "report": json.loads(row.report) if row.report else None,
    }


def refusal_json(row: KeptRefusal) -> dict[str, Any]:
    """A request that was not taken."""
    return {
        "at": iso(row.at_ms),
        "code": row.code,
        "step": row.step,
        "reason": row.reason,
        "method": row.method,
        "headers": json.loads(row.headers or "{}"),
        "body_digest": row.body_digest,
        "body_bytes": row.body_bytes,
        "remote": row.remote,
    }


def rejected_json(row: RejectedRow) -> dict[str, Any]:
    """A record of the log that was set aside."""
    return {
        "at": iso(row.at_ms),
        "reason": row.reason,
        "topic": row.topic,
        "partition": row.partition,
        "position": row.position,
        "key": row.key,
        "headers": json.loads(row.headers or "{}"),
        "bytes": len(row.value or b""),
        "appended_at": moment(row.appended_ms),
    }


def key_json(row: KeyRow) -> dict[str, Any]:
    """An API key, without what only its owner knows."""
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "agent": row.agent,
        "prefix": row.prefix,
        "created_at": iso(row.created_ms),
        "expires_at": moment(row.expires_ms),
        "revoked_at": moment(row.revoked_ms),
    }


def progress_json(row: Progress) -> dict[str, Any]:
    """How far a replay or redrive is."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "reason": row.reason,
        "query": json.loads(row.query),
        "total": row.total,
        "done": row.done,
        "dry_run": False,
        "created_at": moment(row.created_ms),
        "updated_at": moment(row.updated_ms),
    }


def audit_json(line: AuditLine) -> dict[str, Any]:
    """A line of the audit."""
    return {
        "seq": line.seq,
        "at": iso(line.at_ms),
        "actor": line.actor,
        "act": line.act,
        "object": line.object,
        "detail": line.detail,
        "prev_hash": line.prev_hash,
        "hash": line.hash,
    }


def page_by_name(rows: Mapping[str, Row], query: Page, kind: str) -> tuple[list[Row], str | None]:
    """The page of things that have names, in the order of these, and the cursor of the next one."""
    after = read_cursor(kind, query.cursor) if query.cursor else ""
    names = [name for name in sorted(rows) if name > after]
    shown = names[: query.limit]
    return [rows[name] for name in shown], write_cursor(kind, shown[-1]) if len(names) > query.limit else None


def page_by_seq(rows: Sequence[Numbered], query: Page, kind: str) -> tuple[Sequence[Numbered], str | None]:
    """The page out of rows that were asked for one beyond its limit, and the cursor of the next one."""
    shown = rows[: query.limit]
    return shown, write_cursor(kind, shown[-1].seq) if len(rows) > query.limit else None


def listed(items: Sequence[Mapping[str, Any]], next_cursor: str | None = None) -> dict[str, Any]:
    """A list, as every list of the API is."""
    return {"items": list(items), "next_cursor": next_cursor}
