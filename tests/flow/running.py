"""One real installation for flow tests: a served Nightbell on free ports, agents that answer as they are told, the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner, Result

from examples.senders import SECRETS, Delivery
from runtime import main

ROOT = Path(__file__).parents[2]
NIGHTBELL = str(Path(sys.executable).with_name("nightbell"))
AGENT_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE = float(os.environ.get("NBTEST_PATIENCE", "1"))  # how many times as long things may take, on a machine that is busy
T = TypeVar("T")


@dataclass
class Call:
    """What an agent was sent, its signature verified."""

    agent: str
    at: float
    headers: dict[str, str]
    document: dict[str, Any]
    status: int

    @property
    def event(self) -> str:
        return self.document["event"]["id"]

    @property
    def subscription(self) -> str:
        return self.document["invocation"]["subscription"]

    @property
    def token(self) -> str:
        return self.document["links"]["token"]


class Agents:
    """Serves every agent's address; `answers[name]` is a status, or several that are given in turn, the last one for ever."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, list[int]] = {}
        self.forged: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        agents = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = agents.take(self.path.strip("/"), {k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def take(self, name: str, headers: dict[str, str], body: bytes) -> int:
        try:
            Webhook(AGENT_SECRET).verify(body.decode(), headers)
        except Exception as exc:
            self.forged.append(f"{name}: {exc!r}")
            return 401
        with self._lock:
            told = self.answers.get(name, [200])
            status = told.pop(0) if len(told) > 1 else told[0]
            self.calls.append(Call(name, time.time(), headers, json.loads(body), status))
        return status

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.agent == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Running:
    """A served installation in `folder`."""

    folder: Path
    agents: Agents
    config: str
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ingest_url: str = ""
    api_url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")}
        own |= {re.sub(r"\W", "_", f"{name}_secret").upper(): secret for name, secret in SECRETS.items()}
        return own | {
            "AGENTS_URL": self.agents.url,
            "AGENT_SECRET": AGENT_SECRET,
            "NIGHTBELL_DATA_DIR": str(self.folder / "data"),
            "NIGHTBELL_INGEST_BIND": "127.0.0.1:0",
            "NIGHTBELL_API_BIND": "127.0.0.1:0",
            "NIGHTBELL_LOG_FORMAT": "json",
            **self.extra,
        }

    def start(self) -> None:
        """Serve, and wait until it is ready."""
        (self.folder / "nightbell.yaml").write_text(self.config)
        with (self.folder / "out.txt").open("wb") as out, (self.folder / "log.jsonl").open("ab") as log:
            command = [NIGHTBELL, "serve", "--apply", str(self.folder / "nightbell.yaml")]
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=log)
        self.ingest_url = self._printed("ingest")
        self.api_url = self._printed("api")
        until(lambda: self.api("GET", "/readyz", key="")[0] == 200, within_s=60)

    def _printed(self, listener: str) -> str:
        def found() -> str:
            told = re.search(rf"^{listener} listens on (http://\S+)$", (self.folder / "out.txt").read_text(), re.MULTILINE)
            assert self.process is not None
            assert told or self.process.poll() is None, self.log_tail()
            return told[1] if told else ""

        return until(found, within_s=120)  # a busy machine starts slowly

    def log_tail(self) -> str:
        return (self.folder / "log.jsonl").read_text()[-4000:]

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.agents.close()

    @property
    def key(self) -> str:
        return (self.folder / "data/admin.key").read_text().strip()

    def api(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        """The status and the parsed answer, asked with the admin's key where none is given."""
        headers = {"content-type": "application/json"}
        if credential := self.key if key is None else key:
            headers["authorization"] = f"Bearer {credential}"
        data = None if body is None else json.dumps(body).encode()
        return _asked(urllib.request.Request(f"{self.api_url}{path}", data=data, headers=headers, method=method))

    def post(self, delivery: Delivery, *, source: str = "") -> tuple[int, Any]:
        """Post as the vendor does."""
        url = f"{self.ingest_url}/in/{source or delivery.source}"
        headers = {"content-type": "application/json", **delivery.headers}
        return _asked(urllib.request.Request(url, data=delivery.body, headers=headers, method="POST"))

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """A command, in this process, with the environment of the installation."""
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setenv("NIGHTBELL_INGEST_URL", self.ingest_url)
            main.settings.cache_clear()
            try:
                return CliRunner().invoke(main.app, list(words), obj=main.means(), input=stdin)
            finally:
                main.settings.cache_clear()

    def ok(self, *words: str, stdin: str | None = None) -> str:
        """What a command writes that must succeed."""
        done = self.run(*words, stdin=stdin)
        assert done.exit_code == 0, f"{words}: {done.exit_code}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
        return done.stdout

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """The JSON lines of a command that must succeed."""
        return [json.loads(line) for line in self.ok(*words, "--json").splitlines()]

    def apply(self, config: str, *words: str) -> str:
        """Apply another file."""
        path = self.folder / "more.yaml"
        path.write_text(config)
        return self.ok("apply", "-f", str(path), *words)

    def event_of(self, delivery: str) -> dict[str, Any]:
        """The kept event with that delivery id, once it is there."""

        def found() -> dict[str, Any] | None:
            events = self.api("GET", "/v1/events?limit=500")[1]["items"]
            return next((event for event in events if event.get("deliveryid") == delivery), None)

        return until(found)

    def settled(self, within_s: float = 20) -> dict[str, int]:
        """The counts of invocations by state, once none is queued or running."""

        def found() -> dict[str, int] | None:
            states = self.api("GET", "/v1/counts")[1]["invocations"]
            return None if states.get("queued") or states.get("running") else states

        return until(found, within_s=within_s)


def _asked(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, _document(answer.read(), answer.headers.get_content_type())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, _document(exc.read(), exc.headers.get_content_type())


def _document(body: bytes, kind: str) -> Any:
    return json.loads(body) if body and kind.endswith("json") else body


def until(find: Callable[[], T | None], *, within_s: float = 15, pause_s: float = 0.05) -> T:
    """What `find` gives, as soon as it is something."""
    deadline = time.monotonic() + within_s * PATIENCE
    while True:
        try:
            found = find()
        except urllib.error.URLError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s} s: {find}"
        time.sleep(pause_s)


@contextmanager
def served(folder: Path, config: str, **extra: str) -> Iterator[Running]:
    """A running installation, ended with the block."""
    running = Running(folder, Agents(), config, extra)
    try:
        running.start()
        yield running
        assert running.agents.forged == []
    finally:
        running.close()
