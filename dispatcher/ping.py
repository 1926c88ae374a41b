"""A signed synthetic event for one agent, each step of it reported: what `agents ping` shows."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from dispatcher.book import Setting, setting_of
from dispatcher.ports import Caller, Curated
from dispatcher.protocols.base import Attempt, Call, Links, Outcome, is_success, unanswered
from schemas.config import AgentConfig
from schemas.errors import AddressRefused, AgentFailed
from schemas.event import Event
from schemas.ids import event_id, invocation_id
from schemas.invocation import Invocation, Order
from schemas.ledger import Head

TYPE = "nightbell.ping"
_CONTEXT = b'{"ping":true,"note":"A test by an operator of Nightbell: nothing happened, nothing is expected but a 2xx."}'
_MEANING = {
    "delivered": "the agent took it",
    "accepted": "the agent took it and will report later",
    "throttled": "the agent is busy: deliveries would be tried again later",
    "rejected": "the agent refuses this: a delivery would be buried at once",
    "gone": "the agent wants nothing more: the subscription would be disabled",
    "misconfigured": "the agent's lanes would be held until this is mended",
    "failed": "the agent failed: a delivery would be tried again",
    "timeout": "no connection in time: a delivery would be tried again",
    "unreachable": "no connection: a delivery would be tried again",
    "unknown": "it was sent and no answer came: a delivery would be tried again, with the same id",
}


@dataclass(frozen=True, slots=True)
class PingStep:
    """One step of a ping: `name` is `setting`, `sign`, `send` or `answer`."""

    name: str
    ok: bool
    detail: str
    elapsed_ms: float = 0.0


async def ping(agent: AgentConfig, caller: Caller, *, now_ms: int, api_url: str, user_agent: str) -> list[PingStep]:
    """Call the agent once, outside the ledger: no attempt is written and nothing is retried.  The last step is the verdict."""
    setting = setting_of(agent, user_agent=user_agent)
    if setting.protocol is None or setting.target is None:
        return [PingStep("setting", ok=False, detail=setting.problem)]
    if setting.is_pull:
        return [PingStep("setting", ok=True, detail="protocol pull: it is never called, it fetches its work")]
    steps = [PingStep("setting", ok=True, detail=f"{agent.spec.protocol} to {agent.spec.url}")]
    head = _synthetic(agent, now_ms)
    event_link = f"{api_url}/v1/events/{head.event.id}"
    links = Links(event_link, f"{api_url}/v1/invocations/{head.invocation.id}/complete", "none: a ping has no event to open")
    this = Attempt(1, now_ms, now_ms + round(setting.timeout_s * 1000))
    call = setting.protocol.build(head, Curated(_CONTEXT, 0, 0, ""), setting.target, links, this)
    steps.append(PingStep("sign", ok=True, detail=f"{len(agent.secrets)} signature(s) over {len(call.body)} bytes"))
    began_s = perf_counter()
    outcome = await _sent(setting, caller, call)
    elapsed_ms = round((perf_counter() - began_s) * 1000, 1)
    detail = outcome.error if not outcome.status else f"the agent answered {outcome.status}"
    steps.append(PingStep("send", ok=bool(outcome.status), detail=detail, elapsed_ms=elapsed_ms))
    steps.append(PingStep("answer", ok=is_success(outcome), detail=f"{outcome.word}: {_MEANING[outcome.word]}"))
    return steps


async def _sent(setting: Setting, caller: Caller, call: Call) -> Outcome:
    assert setting.protocol is not None
    try:
        answer = await caller.request(
            call.method,
            call.url,
            headers=call.headers,
            body=call.body,
            timeout_s=setting.timeout_s,
            allow_private=setting.allow_private,
            allow_http=setting.allow_private,
        )
    except (AgentFailed, AddressRefused) as exc:
        return unanswered(exc)
    return setting.protocol.interpret(answer)


def _synthetic(agent: AgentConfig, now_ms: int) -> Head:
    event = Event(
        id=event_id(agent.team, TYPE, f"{agent.name}:{now_ms}"),
        team=agent.team,
        source="nightbell",
        provider="nightbell",
        family="nightbell",
        type=TYPE,
        partitionkey=f"{agent.team}/nightbell/{agent.name}",
        time_ms=now_ms,
        received_ms=now_ms,
        traceparent="",
        datacontenttype="application/json",
        body=_CONTEXT,
        summary="A test by an operator of Nightbell",
    )
    made = invocation_id(event.id, TYPE)
    key = event.partitionkey
    invocation = Invocation(
        made, agent.team, event.id, TYPE, "ping", 0, agent.name, agent.shard, key, made, Order.NONE, now_ms, now_ms
    )
    return Head(invocation, event, 0, 0)
