"""The command line, run in this process, and an API that says what it is told to, over real HTTP, in a thread of its own."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from typer.testing import CliRunner

from control.cli import app
from control.client import Connection, Means
from control.documents import Checks
from schemas.errors import NotFound

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there
CHECKS = Checks(
    source=lambda name, spec: None,
    pattern=lambda pattern: None,
    view=lambda view: None,
    url=lambda url, *, allow_private: None,
    protocol=lambda spec: None,
)


class FakeApi:
    """`answers` maps "METHOD /path" to a document, a (status, document), or a list of those given in turn; `asked` keeps the requests."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.url = ""

    async def _answer(self, request):
        body = await request.read()
        asked = {
            "call": f"{request.method} {request.path}",
            "query": dict(request.query),
            "body": json.loads(body) if body else None,
            "key": request.headers.get("authorization"),
            "headers": {name.lower(): value for name, value in request.headers.items()},
        }
        if request.path == "/livez":
            return web.json_response({"status": "ok"})
        self.asked.append(asked)
        found = self.answers.get(asked["call"])
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found is None:
            return web.json_response(
                {"title": "?", "status": 404, "code": "not_found", "detail": "there is no such thing"}, status=404
            )
        status, document = found if isinstance(found, tuple) else (200, found)
        return web.Response(status=status, body=json.dumps(document).encode() if document is not None else b"")

    async def _serve(self, ready, stop):
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        await runner.cleanup()

    @contextmanager
    def running(self):
        ready, stop = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready, stop)), daemon=True)
        thread.start()
        assert ready.wait(10)
        yield self
        stop.set()
        thread.join(10)


class Store:
    """The embedded store, opened for reading: says what it is told to."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    async def call(self, method, path, *, query=None, body=None):
        self.asked.append(f"{method} {path}")
        if path not in self.answers:
            raise NotFound
        return self.answers[path]


def means(url, *, key="nbk_test", store=None, environment=None, ingest_url="http://127.0.0.1:8080"):
    made = []

    @asynccontextmanager
    async def open_store():
        assert store is not None
        yield store

    async def create_local_key(**wanted):
        made.append(wanted)
        return {"id": "key_1", "key": "nbk_local", **wanted}

    found = Means(
        connection=lambda: Connection(url, ingest_url, key, is_embedded=store is not None),
        open_store=open_store,
        checks=lambda: CHECKS,
        create_local_key=create_local_key,
        environment=environment or {},
    )
    return found, made


def run(api_or_means, *words, stdin=None):
    found = api_or_means if isinstance(api_or_means, Means) else means(api_or_means.url)[0]
    return CliRunner().invoke(app, [str(word) for word in words], obj=found, input=stdin)


def one(result):
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def many(result):
    return [json.loads(line) for line in result.stdout.splitlines()]
