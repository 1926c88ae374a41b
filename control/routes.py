"""The API as one table: each route with its act, who may call it, what it takes and what it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from control import actions_contexts as contexts
from control import actions_dead as dead
from control import actions_events as events
from control import actions_keys as keys
from control import actions_lanes as lanes
from control import actions_objects as objects
from control import actions_quota as quotas
from control import actions_work as work
from control import answers, answers_contexts, answers_dead, answers_work, asked, asked_contexts, asked_lanes, callbacks, pulls
from control.auth import Caller, Role
from control.desk import Desk
from control.documents import DocumentShape, flaws_of
from control.problems import Flaw, Flawed
from schemas.config import AgentSpec, QuotaSpec, SourceSpec, SubscriptionSpec
from schemas.errors import Invalid, NotAllowed, NotFound

Act = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `role` is the least role that may call it; `AGENT` is for agents alone.  `for_agents` opens a route of another role to
    agents too, for what is theirs.  The body is parsed into its model; with `is_raw` the act reads the JSON itself, and the
    model only describes it.
    """

    method: str
    path: str
    act: Act
    role: Role
    answer: type[BaseModel]
    query: type[asked.Asked] | None = None
    body: type[BaseModel] | None = None
    is_raw: bool = False
    for_agents: bool = False
    status: int = 200

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


_V, _O, _A = Role.VIEWER, Role.OPERATOR, Role.ADMIN
_INV = "/v1/invocations/{invocation_id}"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/apply", objects.apply_document, _O, answers.Plan, query=asked.ApplyQuery, body=DocumentShape, is_raw=True
    ),
    Route("GET", "/v1/sources", objects.list_sources, _V, answers.Sources, query=asked.Page),
    Route("GET", "/v1/sources/{name}", objects.show_source, _V, answers.ShownSource),
    Route(
        "PUT", "/v1/sources/{name}", objects.put_source, _O, answers.Plan, query=asked.PutQuery, body=SourceSpec, is_raw=True
    ),
    Route("DELETE", "/v1/sources/{name}", objects.delete_source, _O, answers.Plan, query=asked.DeleteQuery),
    Route("GET", "/v1/agents", objects.list_agents, _V, answers.Agents, query=asked.Page),
    Route("GET", "/v1/agents/{name}", objects.show_agent, _V, answers.ShownAgent),
    Route("PUT", "/v1/agents/{name}", objects.put_agent, _O, answers.Plan, query=asked.PutQuery, body=AgentSpec, is_raw=True),
    Route("DELETE", "/v1/agents/{name}", objects.delete_agent, _O, answers.Plan, query=asked.DeleteQuery),
    Route("POST", "/v1/agents/{name}/ping", objects.ping_agent, _O, answers.Ping),
    Route("POST", "/v1/agents/{name}/rotate-secret", objects.rotate_secret, _O, answers.Rotated),
    Route("POST", "/v1/agents/{name}/leases", pulls.lease_work, _O, answers_work.Leases, body=asked.LeaseBody, for_agents=True),
    Route(
        "GET",
        "/v1/agents/{name}/leases/stream",
        pulls.stream_work,
        _O,
        answers.EventStream,
        query=asked.StreamQuery,
        for_agents=True,
    ),
    Route("GET", "/v1/subscriptions", objects.list_subscriptions, _V, answers.Subscriptions, query=asked.Page),
    Route("GET", "/v1/subscriptions/{name}", objects.show_subscription, _V, answers.ShownSubscription),
    Route(
        "PUT",
        "/v1/subscriptions/{name}",
        objects.put_subscription,
        _O,
        answers.Plan,
        query=asked.PutQuery,
        body=SubscriptionSpec,
        is_raw=True,
    ),
    Route("DELETE", "/v1/subscriptions/{name}", objects.delete_subscription, _O, answers.Plan, query=asked.DeleteQuery),
    Route("POST", "/v1/subscriptions/{name}/enable", objects.enable_subscription, _O, answers.Enabled),
    Route("GET", "/v1/events", events.list_events, _V, answers.Events, query=asked.EventQuery),
    Route("GET", "/v1/events/{event_id}", events.show_event, _V, answers.EventDocument, for_agents=True),
    Route(
        "GET",
        "/v1/events/{event_id}/body",
        events.show_body,
        _V,
        answers.Bytes,
        query=asked_contexts.BodyQuery,
        for_agents=True,
    ),
    Route("GET", "/v1/events/{event_id}/trace", events.trace_event, _V, answers_work.Trace),
    Route("GET", "/v1/events/{event_id}/explain", events.explain_event, _V, answers_work.Verdicts, query=asked.ExplainQuery),
    Route("POST", "/v1/match", events.try_match, _V, answers_work.Matched, body=asked.MatchBody),
    Route("POST", "/v1/curate", events.try_curate, _V, answers_work.Curated, body=asked.CurateBody),
    Route("GET", "/v1/facts", contexts.list_facts, _V, answers_contexts.Facts, query=asked_contexts.FactQuery, for_agents=True),
    Route("PUT", "/v1/facts", contexts.put_fact, _O, answers_contexts.Fact, body=asked_contexts.FactBody, for_agents=True),
    Route("GET", "/v1/secrets", contexts.list_secrets, _A, answers_contexts.Secrets),
    Route("PUT", "/v1/secrets/{name}", contexts.put_secret, _A, answers_contexts.Secret, body=asked_contexts.SecretBody),
    Route("DELETE", "/v1/secrets/{name}", contexts.delete_secret, _A, answers_contexts.Dropped),
    Route(
        "GET",
        "/v1/contexts/stats",
        contexts.show_context_stats,
        _V,
        answers_contexts.ContextStats,
        query=asked_contexts.ContextStatsQuery,
    ),
    Route("GET", "/v1/contexts/calibrations", contexts.list_calibrations, _V, answers_contexts.Calibrations),
    Route("GET", "/v1/counts", work.show_counts, _V, answers_work.Counts),
    Route("GET", "/v1/rejected", events.list_rejected, _A, answers.RejectedRecords, query=asked.Page),
    Route("GET", "/v1/invocations", work.list_invocations, _V, answers_work.Invocations, query=asked.InvocationQuery),
    Route("GET", _INV, work.show_invocation, _V, answers_work.ShownInvocation, for_agents=True),
    Route("GET", f"{_INV}/sent", work.show_sent, _V, answers_work.SentBodies),
    Route("GET", f"{_INV}/context", contexts.show_context, _V, answers.Bytes, query=asked_contexts.BodyQuery, for_agents=True),
    Route("POST", f"{_INV}/redrive", work.redrive, _O, answers_work.Moved, query=asked.DryRunQuery),
    Route("POST", f"{_INV}/cancel", work.cancel, _O, answers_work.Moved, query=asked.CancelQuery),
    Route("POST", f"{_INV}/resolve", work.resolve, _O, answers_work.Resolved, body=asked.ResolveBody),
    Route("POST", f"{_INV}/skip", lanes.skip, _O, answers_work.Moved, query=asked.DryRunQuery),
    Route("GET", "/v1/quota", quotas.show_quota, _V, asked_lanes.Quota),
    Route("PUT", "/v1/quota", quotas.put_quota, _O, answers.Plan, query=asked.ApplyQuery, body=QuotaSpec, is_raw=True),
    Route("DELETE", "/v1/quota", quotas.delete_quota, _O, answers.Plan, query=asked.ApplyQuery),
    Route("GET", "/v1/lanes", lanes.list_lanes, _V, asked_lanes.Lanes, query=asked_lanes.LaneQuery),
    Route("POST", "/v1/lanes/unblock", lanes.unblock, _O, asked_lanes.UnblockedLanes, body=asked_lanes.UnblockBody),
    Route("GET", "/v1/dead-letters", dead.list_dead, _V, answers_dead.DeadLetters, query=asked.DeadQuery),
    Route("GET", "/v1/dead-letters/counts", dead.count_dead, _V, answers_dead.DeadCounts),
    Route("GET", "/v1/dead-letters/{invocation_id}", dead.show_dead, _V, answers_dead.ShownDeadLetter),
    Route("DELETE", "/v1/dead-letters/{invocation_id}", dead.purge_dead, _O, answers_dead.Purged, query=asked.DryRunQuery),
    Route("POST", "/v1/purges", dead.create_purges, _O, answers_work.Progress, body=asked.PurgesBody, status=202),
    Route("GET", "/v1/purges/{progress_id}", dead.show_purges, _V, answers_work.Progress),
    Route("POST", "/v1/redrives", work.create_redrives, _O, answers_work.Progress, body=asked.RedrivesBody, status=202),
    Route("GET", "/v1/redrives/{progress_id}", work.show_redrives, _V, answers_work.Progress),
    Route("POST", "/v1/replays", work.create_replays, _O, answers_work.Progress, body=asked.ReplaysBody, status=202),
    Route("GET", "/v1/replays/{progress_id}", work.show_replays, _V, answers_work.Progress),
    Route("POST", f"{_INV}/heartbeat", callbacks.heartbeat, Role.AGENT, answers_work.Heartbeat, body=asked.HeartbeatBody),
    Route("POST", f"{_INV}/checkpoint", callbacks.checkpoint, Role.AGENT, answers_work.KeptOfRun, body=asked.CheckpointBody),
    Route("POST", f"{_INV}/status", callbacks.status, Role.AGENT, answers_work.KeptOfRun, body=asked.StatusBody),
    Route("POST", f"{_INV}/complete", callbacks.complete, Role.AGENT, answers_work.Standing, body=asked.CompleteBody),
    Route("POST", f"{_INV}/fail", callbacks.fail, Role.AGENT, answers_work.Failed, body=asked.FailBody),
    Route("GET", "/v1/keys", keys.list_keys, _A, answers.Keys, query=asked.Page),
    Route("POST", "/v1/keys", keys.create_key, _A, answers.NewKey, body=asked.KeyBody, status=201),
    Route("DELETE", "/v1/keys/{key_id}", keys.revoke_key, _A, answers.Revoked),
    Route("GET", "/v1/audit", keys.list_audit, _A, answers.AuditLines, query=asked.Page),
    Route("GET", "/v1/audit/check", keys.check_audit, _A, answers.AuditVerdict),
)


def is_allowed(route: Route, caller: Caller) -> bool:
    """Whether this caller's role may call the route at all; whose things it sees there, the act decides."""
    if caller.role is Role.AGENT:
        return route.role is Role.AGENT or route.for_agents
    return caller.may(route.role)


async def perform(
    route: Route, desk: Desk, caller: Caller, *, path: Mapping[str, str], query: Mapping[str, str], body: Any
) -> Any:
    """Call the route's act with what was asked, checked.  `body` is parsed JSON; None where there was none.

    Raises the error tree's classes.
    """
    if not is_allowed(route, caller):
        raise NotAllowed
    if any("\0" in value for value in path.values()):
        raise NotFound
    asks: dict[str, Any] = dict(path)
    asks |= _query(route, query)
    asks |= _body(route, body)
    return await route.act(desk, caller, **asks)


def _query(route: Route, query: Mapping[str, str]) -> dict[str, Any]:
    if route.query is not None:
        return {"query": _checked(route.query, query)}
    if query:
        raise Flawed([Flaw(f"/{name}", "there is no such parameter here") for name in query])
    return {}


def _body(route: Route, body: Any) -> dict[str, Any]:
    if route.body is None:
        if body not in (None, {}):
            raise Invalid("this address takes no body")
        return {}
    if route.is_raw:
        return {"body": body}
    return {"body": _checked(route.body, {} if body is None else body)}


def _checked(model: type[BaseModel], raw: Any) -> BaseModel:
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        raise Flawed(flaws_of(errors, raw, model=model)) from None  # the cause may quote what was sent
