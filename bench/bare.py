"""The yardstick: a bare aiohttp + uvloop handler that reads the body and answers 202."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def post(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=202)


async def main() -> None:
    import asyncio

    app = web.Application(client_max_size=2 << 20)
    app.router.add_post("/in/{source}", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
