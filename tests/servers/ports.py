"""Ports that stay ours: for servers that are killed, and must find their port free when they come back.

A port of the system's choice (`bind` to 0) is one of those that every outgoing connection takes its own from: while its server is
away somebody's connection may sit on it, and a second test session may be given it.  So these lie below that range, and each is
held by a lock in a file for as long as this process lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

FIRST, LAST = 15_000, 32_000  # Linux takes outgoing ports from 32,768 on
_held: list[IO[bytes]] = []
_chance = random.Random()


def free_port() -> int:
    """A port of the loopback address that nobody listens on, and that no other caller is given."""
    folder = Path(tempfile.gettempdir()) / f"nightbell-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        port = _chance.randrange(FIRST, LAST)
        lock = (folder / str(port)).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
