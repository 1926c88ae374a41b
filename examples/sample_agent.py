"""A small agent: verifies each call with the `standardwebhooks` package, notes it in a ledger, and answers as it is told.

    python -m examples.sample_agent --port 9000 --agent triage=whsec_… --ledger agent.jsonl [--fail-first 2 --fail-agent billing]

`POST /{agent}` is one agent's address.  With --fail-first N the agents named by --fail-agent answer 503 to the first N attempts of
every invocation and recover then; --delay-ms makes every answer take that long; --down-for SECONDS makes the named ones refuse all
calls at first.  GET /ledger gives the number of calls so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class Agent:
    """What a team would run: it trusts nothing that is not signed, and acts once per idempotency key."""

    def __init__(self, args: argparse.Namespace, ledger: TextIO | None) -> None:
        self.secrets = dict(pair.split("=", 1) for pair in args.agent)
        self.args, self.ledger = args, ledger
        self.calls = 0
        self.done: set[str] = set()
        self.tries: dict[str, int] = {}
        self.started = time.monotonic()

    async def wake(self, request: web.Request) -> web.Response:
        """Take one call."""
        started = time.time()
        name = request.match_info["agent"]
        body = await request.read()
        secret = self.secrets.get(name)
        if secret is None:
            return web.Response(status=404)
        try:
            Webhook(secret).verify(body.decode(), dict(request.headers))
        except WebhookVerificationError as exc:
            self._note({"agent": name, "forged": str(exc), "at": started})
            return web.Response(status=401)
        self.calls += 1
        if self.args.delay_ms:
            await asyncio.sleep(random.uniform(0.2, 1.8) * self.args.delay_ms / 1000)
        key = request.headers["idempotency-key"]
        status = self._status(name, key)
        call = json.loads(body)
        repeated = key in self.done
        if status < 300:  # noqa: PLR2004 - any 2xx
            self.done.add(key)
        self._note(_line(name, call, request, body, status=status, started=started, repeated=repeated))
        return web.Response(status=status)

    def _status(self, name: str, key: str) -> int:
        if name in self.args.fail_agent:
            if time.monotonic() - self.started < self.args.down_for:
                return 503
            self.tries[key] = self.tries.get(key, 0) + 1
            if self.tries[key] <= self.args.fail_first:
                return 503
        return 200

    def _note(self, line: dict[str, Any]) -> None:
        if self.ledger:
            self.ledger.write(json.dumps(line) + "\n")
            self.ledger.flush()

    async def count(self, _request: web.Request) -> web.Response:
        """How many calls came."""
        return web.json_response({"calls": self.calls, "done": len(self.done)})


def _line(
    name: str, call: dict[str, Any], request: web.Request, body: bytes, *, status: int, started: float, repeated: bool
) -> dict[str, Any]:
    return {
        "agent": name,
        "invocation": call["invocation"]["id"],
        "attempt": call["invocation"]["attempt"],
        "subscription": call["invocation"]["subscription"],
        "ordering_key": call["invocation"]["ordering_key"],
        "event": call["event"]["id"],
        "type": call["event"]["type"],
        "traceparent": request.headers.get("traceparent"),
        "context": call.get("context"),
        "bytes": len(body),
        "status": status,
        "repeated": repeated,
        "start": started,
        "end": time.time(),
    }


async def serve(args: argparse.Namespace) -> None:
    """Run until the process is told to stop."""
    ledger = Path(args.ledger).open("a", encoding="utf-8") if args.ledger else None  # noqa: SIM115 - open as long as the process lives
    agent = Agent(args, ledger)
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/{agent}", agent.wake)
    app.router.add_get("/ledger", agent.count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, args.host, args.port).start()
    print(f"agents {', '.join(agent.secrets)} listen on http://{args.host}:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--agent", action="append", required=True, metavar="NAME=SECRET")
    parser.add_argument("--ledger", default="")
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--fail-first", type=int, default=0)
    parser.add_argument("--fail-agent", action="append", default=[])
    parser.add_argument("--down-for", type=float, default=0)
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
