"""What npm has, fetched into `.cache/` with the node of a wheel: by a lock with its dependencies, or as one package alone.

Both are pinned by integrity hashes that are committed; nothing that is fetched is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache"
NODE = Path(sys.executable).parent / "node"


@contextmanager
def made_once(folder: Path) -> Iterator[bool]:
    """Whether `folder` is to be filled now; it counts as filled when the block ends well.  One process at a time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "npm-packages.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if (folder / "fetched").exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield True
        (folder / "fetched").touch()


def _npm(*arguments: str, folder: Path) -> str:
    env = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}", "npm_config_cache": str(CACHE / "npm")}
    done = subprocess.run(
        [str(NODE.with_name("npm")), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"npm {arguments[0]} failed: {done.stderr[-2000:]}"
    return done.stdout


def installed(locked: Path) -> Path:
    """The folder with `node_modules` as the lock in the folder `locked` has them."""
    lock = (locked / "package-lock.json").read_bytes()
    folder = CACHE / "npm-packages" / hashlib.sha256(lock).hexdigest()[:16]
    with made_once(folder) as is_new:
        if is_new:
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(locked / name, folder / name)
            _npm("ci", folder=folder)
    return folder


def unpacked(package: str, integrity: str) -> Path:
    """The folder of one package's own files (`name@version`), without what it depends on."""
    folder = CACHE / "npm-alone" / hashlib.sha256(f"{package} {integrity}".encode()).hexdigest()[:16]
    with made_once(folder) as is_new:
        if is_new:
            shutil.copy(Path(__file__).parent / ".npmrc", folder / ".npmrc")
            found = json.loads(_npm("pack", package, "--json", folder=folder))
            made = next(iter(found.values())) if isinstance(found, dict) else found[0]
            assert made["integrity"] == integrity, f"{package}: {made['integrity']}"
            with tarfile.open(folder / made["filename"]) as archive:
                archive.extractall(folder, filter="data")
            (folder / made["filename"]).unlink()
    return next(path for path in folder.iterdir() if path.is_dir())
