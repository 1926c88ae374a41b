"""Judges a schedule by the independent checker, and by what only the whole world can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.checker import check

if TYPE_CHECKING:
    from tests.simulation.world import World

UNORDERED = {"flaky-none", "changing"}


def judged(world: World) -> list[str]:
    """What broke a promise."""
    calls = [dict(line, end=line.get("end", line["start"])) for line in world.agents.ledger]
    for line in calls:  # without an order each webhook is a key of its own
        if line["subscription"] in UNORDERED:
            line["context"] = line["context"] | {"key": line["context"]["ring"]}
    verdict = check(sent=world.vendor.sent, acked=world.vendor.acked, agent=calls, store=_dump(world), always=world.steady)
    found = list(verdict.faults)
    found += [row["text"] for row in world.database.rows("SELECT text FROM faults")]
    if world.vendor.forged_taken:
        found.append("I2 authenticity: a forged webhook was acknowledged")
    found += _left(world)
    found += _effects(world)
    if world.is_fair:
        found += _counters(world)
    return found


def _dump(world: World) -> dict[str, list[dict[str, Any]]]:
    rows = world.database.rows
    events = rows("SELECT id, json_extract(envelope, '$.deliveryid') AS deliveryid FROM events ORDER BY seq")
    attempts = rows(
        "SELECT i.id AS invocation_id, a.number, a.outcome FROM attempts a JOIN invocations i ON i.seq = a.invocation_seq"
    )
    invocations = rows("SELECT id, event_id, subscription, subscription_uid, state FROM invocations ORDER BY seq")
    return {"events": events, "attempts": attempts, "invocations": invocations}


def _left(world: World) -> list[str]:
    """I8, I10: nothing waits, no lane is left, every end was told once."""
    found = []
    [row] = world.database.rows(
        "SELECT (SELECT count(*) FROM lanes) AS lanes, (SELECT count(*) FROM outbox) AS told, "
        "(SELECT count(*) FROM invocations WHERE ended_ms > 0) AS ended, (SELECT count(*) FROM deaths) AS deaths"
    )
    if row["lanes"]:
        found.append(f"I10 resources: {row['lanes']} lanes are left")
    if row["told"] != row["ended"]:
        found.append(f"I11 telemetry: {row['ended']} invocations ended and {row['told']} outcomes were told")
    acked = {line["ring"] for line in world.vendor.acked if 200 <= line["status"] < 300}
    if len(acked) < world.vendor.keys * world.vendor.events:
        found.append(f"I8 liveness: {len(acked)} of {world.vendor.keys * world.vendor.events} webhooks were ever acknowledged")
    return found


def _effects(world: World) -> list[str]:
    """I5: what is called done was done; and an agent that keeps ids would have done it once."""
    done = world.database.rows("SELECT id FROM invocations WHERE state = 'done'")
    return [
        f"I5 idempotent effect: {row['id']} is done without effect" for row in done if row["id"] not in world.agents.effects
    ]


def _counters(world: World) -> list[str]:
    """I11: where nobody was killed, the counters are the ledger's; an attempt that a clock's step cut off was counted by nobody."""
    [row] = world.database.rows(
        "SELECT (SELECT count(*) FROM invocations) AS invocations, (SELECT count(*) FROM attempts WHERE error NOT LIKE 'its dispatcher stopped%') AS attempts"
    )
    return [
        f"I11 telemetry: {name} were counted {world.counted[name]:.0f} times and are {row[name]}"
        for name in ("invocations", "attempts")
        if world.counted[name] != row[name]
    ]
