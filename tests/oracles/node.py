"""SDKs for node as judges: one process of `judge.cjs` answers all questions, in their order."""

from __future__ import annotations

import atexit
import json
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ingest.inbound import Request
from tests.npm.fetch import CACHE, NODE, installed, unpacked

HERE = Path(__file__).parent / "npm"
# Of these only their own files are needed, none of the hundreds of packages that they depend on.
ALONE = json.loads((HERE / "alone.json").read_text())


class Refusal(Exception):
    """The SDK threw."""


@cache
def _process() -> subprocess.Popen[str]:
    modules = installed(HERE)
    packs = CACHE / "npm-oracles-alone"
    packs.mkdir(exist_ok=True)
    for package, integrity in ALONE.items():
        place = packs / package.rpartition("@")[0]
        folder = unpacked(package, integrity)
        place.mkdir(exist_ok=True)
        if (place / "package").resolve() != folder.resolve():
            (place / "package").unlink(missing_ok=True)
            (place / "package").symlink_to(folder, target_is_directory=True)
    asked = [str(NODE), "--preserve-symlinks", str(HERE / "judge.cjs"), str(modules), str(packs)]
    started = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=modules)
    atexit.register(started.kill)
    return started


def ask(judge: str, act: str, secret: str, request: Request, options: dict[str, Any]) -> dict[str, Any]:
    """The answer of one SDK, at the present time (a test may have stopped it).  Raises `Refusal`."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    question = {
        "judge": judge, "act": act, "secret": secret, "method": request.method, "url": request.url, "headers": request.headers,
        "body": b64encode(request.body).decode(), "now_ms": round(time.time() * 1000), "options": options,
    }  # fmt: skip
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or '{"error": "the judge has ended"}')
    assert answer.get("error") != "the judge has ended"
    if "error" in answer:
        raise Refusal(answer["error"])
    return answer


def verifier(judge: str, **options: Any) -> Callable[[str, Request], object]:
    """A `verify` of the table, by an SDK for node."""
    return lambda secret, request: ask(judge, "verify", secret, request, options)["ok"]


def signer(judge: str, **options: Any) -> Callable[[str, Request, int], dict[str, str]]:
    """A `sign` of the table, by an SDK for node."""
    return lambda secret, request, now_s: ask(judge, "sign", secret, request, options)["headers"]
