"""The checker is checked by mutation: each kind of broken promise is reported."""

from __future__ import annotations

import copy

import pytest

from tests.chaos.checker import check


def good() -> dict:
    sent = [{"ring": f"r{k}{s}", "key": k, "seq": s} for k in "ab" for s in range(3)]
    calls = [
        {
            "invocation": f"inv_{line['ring']}", "event": f"evt_{line['ring']}", "subscription": "all", "attempt": 1, "status": 200,
            "context": dict(line), "start": line["seq"] * 10.0, "end": line["seq"] * 10.0 + 1,
        }
        for line in sent
    ]  # fmt: skip
    return {
        "sent": sent,
        "acked": [{"ring": line["ring"], "status": 202} for line in sent],
        "agent": calls,
        "store": {
            "events": [{"id": f"evt_{line['ring']}", "deliveryid": line["ring"]} for line in sent],
            "invocations": [
                {
                    "id": f"inv_{line['ring']}",
                    "event_id": f"evt_{line['ring']}",
                    "subscription": "all",
                    "subscription_uid": "u",
                    "state": "done",
                }
                for line in sent
            ],
            "attempts": [{"invocation_id": f"inv_{line['ring']}", "number": 1, "outcome": "delivered"} for line in sent],
        },
        "always": ["all"],
    }


def faults(run: dict) -> str:
    return " ".join(check(**run).faults)


def test_a_run_that_kept_every_promise_has_no_faults():
    assert check(**good()).faults == []


def test_a_repeated_call_with_the_same_id_is_allowed_and_counted():
    run = good()
    again = copy.deepcopy(run["agent"][2]) | {"start": 25.0, "end": 26.0}
    run["agent"].append(again)

    verdict = check(**run)

    assert verdict.faults == []
    assert verdict.figures["repeated_calls"] == 1


def test_a_call_that_a_frozen_process_makes_late_is_no_call_of_its_own():
    run = good()
    late = copy.deepcopy(run["agent"][0]) | {"start": 15.0, "end": 16.0}  # after the next one of its key
    again = copy.deepcopy(run["agent"][0]) | {"attempt": 2, "start": 2.0, "end": 3.0}
    run["store"]["attempts"].append({"invocation_id": again["invocation"], "number": 2, "outcome": "delivered"})
    run["agent"][0] = again  # what its shard's new owner said in its place

    run["agent"].append(late)
    assert check(**run).faults == []

    run["agent"][-1] = late | {"attempt": 3}  # said by an owner of today, it is a call like any other
    run["store"]["attempts"].append({"invocation_id": again["invocation"], "number": 3, "outcome": "delivered"})
    assert "I3 order" in faults(run)


@pytest.mark.parametrize(
    ("mutate", "invariant"),
    [
        (lambda r: r["store"]["events"].pop(0), "I1"),
        (lambda r: r["store"]["invocations"].pop(0), "I1"),
        (lambda r: r["agent"].pop(0), "I1"),
        (lambda r: r["agent"][0]["context"].update(ring="forged"), "I2"),
        (lambda r: r["agent"].append({"forged": "No matching signature"}), "I2"),
        (lambda r: r["agent"][0].update(start=15.0, end=16.0), "I3"),
        (lambda r: r["agent"][0].update(end=10.5), "I3"),
        (lambda r: r["store"]["invocations"].append(dict(r["store"]["invocations"][0], id="inv_two")), "I4"),
        (lambda r: r["store"].update(zombies=[{"what": "settled"}]), "I3 fencing"),
        (lambda r: r["store"]["events"].append(dict(r["store"]["events"][0], id="evt_two")), "I4"),
        (lambda r: r["agent"].append(dict(r["agent"][2], invocation="inv_other", start=30.0, end=31.0)), "I5"),
        (lambda r: r["store"]["attempts"].pop(0), "I7"),
        (lambda r: r["store"]["attempts"][0].update(outcome=""), "I7"),
        (lambda r: r["store"]["invocations"][0].update(state="waiting"), "I8"),
    ],
)
def test_each_broken_promise_is_reported(mutate, invariant):
    run = good()
    mutate(run)

    assert invariant in faults(run)
