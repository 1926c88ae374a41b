"""One HTTP listener: bound, told of, closed gracefully."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog
from aiohttp import web

from runtime.settings import address_of
from schemas.errors import BadSetting

KEEPALIVE_S = 15.0  # aiohttp's own default keeps a silent connection for an hour
_BACKLOG = 1024


def app_runner(app: web.Application) -> web.BaseRunner:
    """A runner for an application, with our bounds."""
    return web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S, handle_signals=False, shutdown_timeout=10.0)


class Listener:
    """`open` binds first and makes what it serves then, since links need the port that the system chose.

    Who needs the URL before there is something to serve calls `bind` itself.
    """

    def __init__(self, name: str, bind: str) -> None:
        self._name, self._bind = name, bind
        self._runner: web.BaseRunner | None = None
        self._socket: socket.socket | None = None
        self._url = ""

    async def bind(self) -> str:
        """Bind, without listening yet; the URL.  Raises `BadSetting` where the address cannot be had."""
        if self._socket is not None:
            return self._url
        host, port = address_of(self._bind)
        try:
            probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
        except OSError as exc:
            raise BadSetting(f"cannot listen on {self._bind}: {exc.strerror or exc}") from exc
        self._socket = probe.sockets[0].dup()
        probe.close()
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what listens everywhere is reached here
        bound = self._socket.getsockname()[1]
        self._url = f"http://[{reachable}]:{bound}" if ":" in reachable else f"http://{reachable}:{bound}"
        return self._url

    async def open(self, make: Callable[[str], web.BaseRunner]) -> str:
        """Bind, serve what `make(url)` gives, and return the URL.  Raises `BadSetting` where the address cannot be had."""
        url = await self.bind()
        assert self._socket is not None
        self._runner = make(url)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, backlog=_BACKLOG).start()
        structlog.get_logger().info("listening", what=self._name, url=url)
        print(f"{self._name} listens on {url}", flush=True)  # noqa: T201 - stdout is for who started us: with port 0 nobody else knows
        return url

    async def aclose(self) -> None:
        """Take no more connections, finish what is under way."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
