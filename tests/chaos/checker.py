"""The independent checker: a pure function of ledgers that no tested process wrote, and a dump of the store.

    sent     one line per request before it goes out:  {"ring", "key", "seq"}
    acked    one line per answer:                      {"ring", "status"}
    agent    one line per call, before it is answered: {"invocation", "event", "subscription", "context": {"ring","key","seq"},
             "attempt", "status", "start", "end"}
    store    {"events": [{"id", "deliveryid"}], "invocations": [{"id", "event_id", "subscription", "subscription_uid", "state"}],
             "attempts": [{"invocation_id", "number", "outcome"}], "zombies": [what a trigger in the database saw: optional]}

The driver never sends a key's seq n+1 before n was acknowledged, so the order of the log per key is known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

ENDS = {"done", "declined", "buried", "superseded", "expired", "canceled"}


@dataclass
class Verdict:
    """What was found; `faults` is empty where every promise was kept."""

    faults: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def fault(self, invariant: str, text: str) -> None:
        self.faults.append(f"{invariant}: {text}")


def check(*, sent: Iterable[dict], acked: Iterable[dict], agent: Iterable[dict], store: dict, always: Iterable[str]) -> Verdict:
    """Judge a run.  `always` names the subscriptions that were live, and matched everything, from the first ring to the last."""
    verdict = Verdict()
    sent_rings = {line["ring"]: line for line in sent}
    acked_rings = {line["ring"] for line in acked if 200 <= line["status"] < 300}
    calls = [line for line in agent if "forged" not in line]
    for line in agent if isinstance(agent, list) else []:
        if "forged" in line:
            verdict.fault("I2 authenticity", f"the agent refused a signature: {line}")
    _durable(verdict, acked_rings, calls, store, list(always))
    _authentic(verdict, sent_rings, calls)
    _ordered(verdict, calls, store)
    _single(verdict, calls, store)
    _complete(verdict, calls, store)
    for line in store.get("zombies", []):
        verdict.fault("I3 fencing", f"who no longer owned the shard wrote: {line}")
    verdict.figures |= {"sent": len(sent_rings), "acked": len(acked_rings), "calls": len(calls), "events": len(store["events"])}
    return verdict


def _durable(verdict: Verdict, acked: set[str], calls: list[dict], store: dict, always: list[str]) -> None:
    """I1: what was acknowledged is an event, and every standing subscription's invocation of it was delivered or ended visibly."""
    event_of = {row["deliveryid"]: row["id"] for row in store["events"]}
    ended = {(row["event_id"], row["subscription"]) for row in store["invocations"] if row["state"] in ENDS}
    delivered = {(line["event"], line["subscription"]) for line in calls if line["status"] < 300}
    for ring in sorted(acked):
        event = event_of.get(ring)
        if event is None:
            verdict.fault("I1 durability", f"{ring} was acknowledged and is no event")
            continue
        for subscription in always:
            pair = (event, subscription)
            if pair not in ended:
                verdict.fault("I1 durability", f"{ring} ({event}) has no ended invocation for {subscription}")
            elif pair not in delivered and not _ended_otherwise(store, pair):
                verdict.fault(
                    "I1 durability", f"{ring} ({event}) is called done for {subscription}, but the agent never took it"
                )


def _ended_otherwise(store: dict, pair: tuple[str, str]) -> bool:
    return any(
        (row["event_id"], row["subscription"]) == pair and row["state"] in ENDS - {"done"} for row in store["invocations"]
    )


def _authentic(verdict: Verdict, sent: dict[str, dict], calls: list[dict]) -> None:
    for line in calls:
        if line["context"]["ring"] not in sent:
            verdict.fault("I2 authenticity", f"the agent got {line['context']['ring']}, which nobody sent")


def _ordered(verdict: Verdict, calls: list[dict], store: dict) -> None:
    """I3: within a lane, first calls start in the order of the log, and no call of n+1 starts before n's last one ended.

    The log has a sender's own order, but for a key of which something waited in a spool (events are marked so): what another
    ingest process took meanwhile may stand before it.  There the positions count, elsewhere the sender's numbers.

    A process that stood still between its last look at its lease and the first byte says again, late, what another has said
    since: that call is of an attempt before the one that was made already, carries the same id, and is no call of its own.
    """
    places = {row["deliveryid"]: row["position"] for row in store["events"] if "position" in row}
    spooled = {row["deliveryid"] for row in store["events"] if "spooled" in row.get("flags", "")}
    lanes: dict[tuple, list[dict]] = defaultdict(list)
    for line in calls:
        lanes[line["subscription"], line["context"]["key"]].append(line)
    for lane, lines in lanes.items():
        lines.sort(key=lambda line: line["start"])
        highest, ended = -1, 0.0
        attempts: dict[str, int] = {}
        by_log = any(line["context"]["ring"] in spooled for line in lines)
        for line in lines:
            if line["attempt"] < attempts.setdefault(line["invocation"], line["attempt"]):
                continue
            attempts[line["invocation"]] = line["attempt"]
            seq = places[line["context"]["ring"]] if by_log else line["context"]["seq"]
            if seq < highest:
                verdict.fault("I3 order", f"{lane}: a call of {seq} started after one of {highest}")
            if seq > highest:
                if line["start"] < ended:
                    verdict.fault("I3 order", f"{lane}: {seq} started before {highest} ended")
                highest = seq
            ended = max(ended, line["end"])


def _single(verdict: Verdict, calls: list[dict], store: dict) -> None:
    """I4, I5: one invocation per event and subscription, one event per delivery, and a repeated call keeps its id."""
    for pair, count in Counter((row["event_id"], row["subscription_uid"]) for row in store["invocations"]).items():
        if count > 1:
            verdict.fault("I4 single invocation", f"{pair} has {count}")
    for ring, count in Counter(row["deliveryid"] for row in store["events"]).items():
        if count > 1:
            verdict.fault("I4 single invocation", f"{ring} became {count} events")
    ids: dict[tuple, set[str]] = defaultdict(set)
    for line in calls:
        ids[line["context"]["ring"], line["subscription"]].add(line["invocation"])
    for pair, names in ids.items():
        if len(names) > 1:
            verdict.fault("I5 idempotent effect", f"{pair} was called under {sorted(names)}")
    verdict.figures["repeated_calls"] = sum(
        1 for _, n in Counter((c["invocation"], c["attempt"]) for c in calls).items() if n > 1
    )


def _complete(verdict: Verdict, calls: list[dict], store: dict) -> None:
    """I7: every call has an attempt row; every invocation and every attempt has ended."""
    rows = {(row["invocation_id"], row["number"]) for row in store["attempts"]}
    for line in calls:
        if (line["invocation"], line["attempt"]) not in rows:
            verdict.fault("I7 trace", f"a call of {line['invocation']} has no attempt row {line['attempt']}")
    for row in store["invocations"]:
        if row["state"] not in ENDS:
            verdict.fault("I8 liveness", f"{row['id']} is still {row['state']}")
    for row in store["attempts"]:
        if not row["outcome"]:
            verdict.fault("I7 trace", f"attempt {row['number']} of {row['invocation_id']} has no end")
