"""An agent that is called and takes its time: it answers 202, keeps checkpoints, and reports.

AGENT_SECRET=whsec_… python -m examples.accepting_agent 9000
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from examples.agent_kit import Run, accepts


@accepts
def work(run: Run) -> dict[str, object]:
    """Two steps; a process that dies after the first is followed by an attempt that knows of it."""
    first = run.checkpoint or f"first step by attempt {run.attempt}"
    run.keep(first)
    if run.attempt == 1 and os.environ.get("CRASH_ONCE"):
        os._exit(1)
    return {"first": first, "second": f"second step by attempt {run.attempt}"}


class Door(BaseHTTPRequestHandler):
    """Verifies each call, and accepts it."""

    def do_POST(self) -> None:
        """Take one call."""
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            Webhook(os.environ["AGENT_SECRET"]).verify(body.decode(), dict(self.headers.items()))
        except WebhookVerificationError:
            status = 401
        else:
            status = work(body)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Door).serve_forever()
