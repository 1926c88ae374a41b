"""A small client for agents, of the standard library alone: runs under supervision, work that is fetched.  Copy it, it is yours.

A run is a function of a `Run`.  What it returns is its result; `Declined`, `NeedsHuman` and `Failed` say what else became of
it, `Stop` ends it where Nightbell asked for that.  Heartbeats go out by themselves while it works.

    @fetches("http://127.0.0.1:8081", agent="triage", key=os.environ["NIGHTBELL_AGENT_KEY"])
    def triage(run): ...

    triage()                       # fetches and works, one after another, until the process ends
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Work = Callable[["Run"], Any]
PATIENCE_S = 1.0
SERVER_ERROR = 500


class Declined(Exception):
    """It is not for this agent to do."""


class NeedsHuman(Exception):
    """A person must decide."""


class Failed(Exception):
    """It failed; `retryable` says whether trying again may help."""

    def __init__(self, why: str, *, retryable: bool = True) -> None:
        super().__init__(why)
        self.retryable = retryable


class Stop(Exception):
    """Nightbell asked for it: canceled, or of no use any more."""


def call(url: str, token: str, body: Any, *, timeout_s: float = 75.0) -> Any:
    """POST JSON, and the answer's JSON.  Tries again while Nightbell is away; raises `urllib.error.HTTPError` for its refusals."""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    for pause_s in (0.2, 0.5, 1, 2, 5, 10, None):
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            if exc.code < SERVER_ERROR or pause_s is None:
                raise
        except OSError:
            if pause_s is None:
                raise
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


class Run:
    """One invocation to work on; `document` is what Nightbell sends a webhook agent."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.id: str = document["invocation"]["id"]
        self.attempt: int = document["invocation"]["attempt"]
        self.event: dict[str, Any] = document["event"]
        self.context: Any = document["context"]
        self.checkpoint: Any = document.get("checkpoint")
        self._url = document["links"]["complete"].rpartition("/")[0]
        self._token = document["links"]["token"]
        self._told_to_stop = False
        self._ended = threading.Event()

    def say(self, what: str, body: Any = None) -> Any:
        """Say something of this run; the answer.  Notes when it asks to stop."""
        answer = call(f"{self._url}/{what}", self._token, body or {})
        self._told_to_stop = self._told_to_stop or bool(answer.get("stop"))
        return answer

    def keep(self, checkpoint: Any) -> None:
        """Keep how far it is, for the next attempt.  Raises `Stop` where it should not go on."""
        self.check()
        self.say("checkpoint", {"checkpoint": checkpoint})
        self.checkpoint = checkpoint
        self.check()

    def status(self, *, tried: str = "", blocked: str = "", next: str = "") -> None:  # noqa: A002 - the field's own name
        """Tell people where it stands."""
        self.say("status", {"tried": tried, "blocked": blocked, "next": next})

    def check(self) -> None:
        """Raise `Stop` where Nightbell asked for it: call it between steps."""
        if self._told_to_stop:
            raise Stop

    def work(self, function: Work) -> None:
        """Run the function with heartbeats, and report what came of it."""
        beats = threading.Thread(target=self._beat, daemon=True)
        beats.start()
        try:
            end = ("complete", {"outcome": "done", "result": function(self)})
        except Stop:
            end = ("complete", {"outcome": "stopped"})
        except Declined as exc:
            end = ("complete", {"outcome": "declined", "note": str(exc)})
        except NeedsHuman as exc:
            end = ("complete", {"outcome": "needs_human", "note": str(exc)})
        except Exception as exc:  # noqa: BLE001 - whatever it is, Nightbell is told
            end = ("fail", {"error": f"{type(exc).__name__}: {exc}"[:2000], "retryable": getattr(exc, "retryable", True)})
        self._ended.set()
        try:
            self.say(*end)
        except urllib.error.HTTPError as exc:
            if exc.code not in {401, 404, 409}:  # it is over, or another attempt has taken over: nobody waits for this
                raise

    def _beat(self) -> None:
        pause_s = 0.0
        while not self._ended.wait(pause_s):
            try:
                answer = self.say("heartbeat")
            except OSError:  # refused or out of reach: the next one may come through
                pause_s = PATIENCE_S
                continue
            until = answer.get("lease_until")
            left_s = (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() if until else 30.0
            pause_s = min(max(left_s / 3, 0.3), 30.0)


def fetches(api: str, *, agent: str, key: str, worker: str = "", wait_s: float = 30.0) -> Callable[[Work], Callable[[], None]]:
    """Make a function an agent of `protocol: pull`: calling it fetches and works until the process ends."""

    def decorated(function: Work) -> Callable[[], None]:
        def serve() -> None:
            while True:
                body = {"max": 1, "wait_s": wait_s, "worker": worker}
                for item in call(f"{api}/v1/agents/{agent}/leases", key, body)["items"]:
                    Run(item["delivery"]).work(function)

        return serve

    return decorated


def accepts(function: Work) -> Callable[[bytes], int]:
    """Make a function an agent of `protocol: webhook` with long runs: give it a request's body, once its signature is verified.

    It begins the run in a thread and gives the status to answer: 202.  The same invocation twice begins one run for each attempt.
    """
    begun: set[tuple[str, int]] = set()

    def accept(body: bytes) -> int:
        run = Run(json.loads(body))
        if (run.id, run.attempt) not in begun:
            begun.add((run.id, run.attempt))
            threading.Thread(target=run.work, args=(function,), daemon=True).start()
        return 202

    return accept
