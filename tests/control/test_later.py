"""The steps after matching, as explain, trace and the command line tell of them."""

from __future__ import annotations

import json
from dataclasses import replace

from control.cli_events import became, verdicts_shown
from control.output import Output
from schemas.invocation import Planned
from tests.fakes.api_world import DOCUMENT, World
from tests.fakes.command_line import NOBODY, means, run
from tests.store.plans import LOG, PLACE, an_event

BUGS = DOCUMENT["subscriptions"]["bugs"]


async def explained(world: World, event_id: str) -> dict[str, dict[str, str]]:
    _, found = await world.call("GET", f"/v1/events/{event_id}/explain")
    return {
        item["subscription"]: {later["step"]: later["reason"] for later in item.get("later", ())} for item in found["items"]
    }


async def folded(world: World) -> tuple[Planned, Planned]:
    """Two events of one dedup key: the second is folded into the first."""
    await world.applied()
    first, second = await world.admit("one", subscription=None), an_event("two")
    invocation = {}
    for event in (first.event, second):
        row = (await world.call("GET", "/v1/subscriptions/bugs"))[1]
        planned = world.invocation(event, row["uid"], "bugs", "triage", replay="rpl_1")
        invocation[event.id] = replace(planned, dedup_digest="d", dedup_window_ms=60_000)
    one = Planned(first.event, 1, (invocation[first.event.id],))
    two = Planned(second, 2, (replace(invocation[second.id], replay_id=""),))
    await world.admission.admit_replay([one])
    await world.admission.admit(LOG, PLACE, first=1, after=2, plans=[two], now_ms=world.now.ms)
    return one, two


async def test_explain_names_the_invocation_that_an_event_is_a_duplicate_of(world: World) -> None:
    one, two = await folded(world)

    later = await explained(world, two.event.id)

    assert list(later["bugs"]) == ["duplicate"]
    assert f"duplicate of {one.invocations[0].id} of {one.event.id}" in later["bugs"]["duplicate"]


async def test_a_trace_shows_what_was_folded_and_the_list_says_so(world: World) -> None:
    one, two = await folded(world)

    _, trace = await world.call("GET", f"/v1/events/{two.event.id}/trace")
    _, listed = await world.call("GET", "/v1/events")

    (step,) = [step for step in trace["steps"] if step["step"] == "folded"]
    assert one.invocations[0].id in step["detail"]
    assert trace["invocations"] == []
    assert trace["misses"][0]["later"][0]["step"] == "duplicate"
    assert became(next(item for item in listed["items"] if item["id"] == two.event.id)) == "folded"


async def test_explain_says_what_pausing_and_a_later_subscription_mean(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")
    world.now.ms += 60_000
    subscriptions = {"bugs": {**BUGS, "state": "paused"}, "new": BUGS}
    await world.applied({**DOCUMENT, "subscriptions": subscriptions})

    later = await explained(world, plan.event.id)

    assert list(later["bugs"]) == ["paused"]
    assert later["new"]["unplanned"].startswith("the subscription was made after the event")


async def test_explain_says_how_an_invocation_ended(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")
    await world.call("POST", f"/v1/invocations/{plan.invocations[0].id}/cancel", who="operator")

    later = await explained(world, plan.event.id)

    assert later["bugs"]["canceled"].startswith(plan.invocations[0].id)


async def test_an_apply_warns_of_what_is_probably_not_meant_in_what_it_changes(world: World) -> None:
    odd = {**BUGS, "pattern": {"odd": ["x"]}}
    document = {**DOCUMENT, "subscriptions": {**DOCUMENT["subscriptions"], "strange": odd}}
    await world.applied()
    await world.admit("one")

    first, again = await world.applied(document), await world.applied(document)

    said = "beside 1, ['github.issues.opened'], 1 events"
    assert first["warnings"] == [{"subscription": "strange", "code": "odd", "text": said}]
    assert again["warnings"] == []


async def test_a_rule_in_any_language_is_tried_by_the_api(world: World) -> None:
    await world.applied()
    event = {"type": "github.issues.opened"}

    by_name = await world.call("POST", "/v1/match", {"subscription": "bugs", "event": event})
    by_cesql = await world.call("POST", "/v1/match", {"cesql": "TRUE", "event": event})
    both = await world.call("POST", "/v1/match", {"cesql": "TRUE", "pattern": {"type": ["x"]}, "event": event})
    neither, _ = await world.call("POST", "/v1/match", {"event": event})

    assert (by_name[0], by_name[1]["matched"], by_cesql[0]) == (200, True, 200)
    assert (both[0], neither) == (422, 422)


def test_the_command_line_tries_filters_and_cesql_with_a_guard():
    asks = means(NOBODY)[0]
    event = json.dumps({"type": "github.push", "source": "acme", "data": {"n": 3}})
    filters = json.dumps({"filters": [{"prefix": {"type": "github."}}]})
    cesql = json.dumps({"cesql": "type LIKE 'github.%'", "when": "data.n > 5"})

    assert run(asks, "match", "-s", filters, "-e", event).exit_code == 0
    assert run(asks, "match", "-s", cesql, "-e", event).exit_code == 1
    assert run(asks, "match", "-s", filters, "-p", "{}", "-e", event).exit_code == 2


def test_misses_that_are_far_away_take_one_line_each(capsys):
    field = {"path": "type", "ok": False, "wanted": ["x"], "found": "y"}
    verdicts = [{"subscription": f"s{n}", "matched": False, "fields": [field]} for n in range(8)]

    Output(as_json=False).show(verdicts_shown(verdicts))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "s0: did not match"
    assert lines[-3:] == [f's{n}: did not match: type wanted ["x"], found y' for n in (5, 6, 7)]


RULES = """
Rules:
- Name: OrderPaid
  EventPattern: '{"detail-type": ["stripe.invoice.paid"], "region": ["eu-west-1"]}'
  Targets: [{Id: lambda, Arn: arn}]
"""


def test_import_rules_writes_subscriptions_and_reports_what_was_lost(tmp_path):
    asks = means(NOBODY)[0]
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "schedule.json").write_text('{"Name": "nightly", "ScheduleExpression": "rate(1 day)"}')

    whole = run(asks, "import-rules", tmp_path / "rules.yaml", "--agent", "billing")
    none = run(asks, "import-rules", tmp_path / "schedule.json", "--agent", "billing", "--json")

    assert whole.exit_code == 0
    assert "agent: billing" in whole.stdout
    assert "not carried over: region" in whole.stderr
    assert none.exit_code == 1
    assert json.loads(none.stdout)["reports"][0]["rule"] == "nightly"
