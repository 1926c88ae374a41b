"""`make demo`, with a smaller mix: it ends well, and its accounts would not hide a loss."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from examples.account import Ledgers, Posted, discrepancies
from examples.mix import DUPLICATE, FORGED, GOOD, MALFORMED, STALE, chains

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(90)
def test_the_demo_accounts_for_every_event():
    command = [sys.executable, "-m", "examples.demo", "--deliveries", "80"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=80)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Every accepted event is accounted for" in done.stdout
    for told in (
        "duplicates folded",
        "signature_mismatch",
        "timestamp_stale",
        "malformed",
        "post to 2xx",
        "attempt 3",
        "saved",
    ):
        assert told in done.stdout, told


def test_the_mix_has_all_that_goes_wrong():
    posts = [post for chain in chains(400) for post in chain]

    meanings = [post.meaning for post in posts]
    assert {meaning: meanings.count(meaning) for meaning in (FORGED, STALE, MALFORMED)} == {
        FORGED: 10,
        STALE: 10,
        MALFORMED: 10,
    }
    assert meanings.count(DUPLICATE) == 60
    assert len({post.delivery.source for post in posts}) == 6
    assert len(posts) == pytest.approx(400, abs=10)


def ledgers(**changes) -> Ledgers:
    """One webhook, one event, one delivery: all is well."""
    (post,) = next(chain for chain in chains(80) if len(chain) == 1 and chain[0].meaning == GOOD)
    posted = [Posted(post, 202, "", 0.01)]
    event = {
        "id": "evt_1", "source": post.delivery.source, "type": "t", "invocations": 1, "states": {"done": 1},
        "receivedtime": "2026-11-21T10:00:00Z", "partitionkey": "k",
    }  # fmt: skip
    invocation = {"id": "inv_1", "event_id": "evt_1", "subscription": "s", "state": "done", "reason": "delivered"}
    call = {"event": "evt_1", "subscription": "s", "invocation": "inv_1", "status": 200, "start": 1.0, "ordering_key": "k"}
    digest = hashlib.sha256(post.delivery.body).hexdigest()
    found = {"posted": posted, "events": [event], "invocations": [invocation], "bodies": {"evt_1": digest}, "calls": [call]}
    return Ledgers(**(found | changes))


def test_accounts_that_add_up_have_no_discrepancy():
    assert discrepancies(ledgers()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"events": [], "invocations": [], "calls": []}, "is no event"),
        ({"calls": []}, "no agent took it"),
        ({"bodies": {"evt_1": "other"}}, "nobody sent it"),
        ({"invocations": []}, "of which no invocation is there"),
        ({"calls": [{"forged": "No matching signature"}]}, "refused a signature"),
    ],
)
def test_a_loss_is_told(changes: dict, told: str):
    found = discrepancies(ledgers(**changes))

    assert any(told in line for line in found), found


@pytest.mark.parametrize(
    ("change", "told"),
    [({"status": 503}, "no agent took it"), ({"invocation": "inv_2"}, "delivered under")],
)
def test_a_wrong_call_is_told(change: dict, told: str):
    sound = ledgers()
    sound.calls = [{**sound.calls[0], **change}]

    assert any(told in line for line in discrepancies(sound)), discrepancies(sound)


def test_a_forgery_that_was_accepted_is_told():
    sound = ledgers()
    forged = next(chain[0] for chain in chains(80) if chain[0].meaning == FORGED)
    sound.posted.append(Posted(forged, 202, "", 0.01))

    assert any("forged signature: 401 was expected" in line for line in discrepancies(sound))


def test_an_event_that_did_not_end_is_told():
    sound = ledgers()
    sound.events[0]["states"] = {"waiting": 1}

    assert any("has not ended" in line for line in discrepancies(sound))


def test_calls_out_of_order_are_told():
    sound = ledgers()
    later = {**sound.events[0], "id": "evt_2", "receivedtime": "2026-11-21T10:00:01Z"}
    sound.events.append(later)
    sound.calls.append({**sound.calls[0], "event": "evt_2", "start": 0.5})

    sound.bodies["evt_2"] = sound.bodies["evt_1"]
    assert any("out of order" in line for line in discrepancies(sound))
