"""Payloads that vendors and others publish in packages: fetched as the hashes in `packages.toml` say, and read out."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from payload.pointer import reach, steps_of
from tests.npm.fetch import CACHE, made_once, unpacked

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PACKAGES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "packages.toml").read_text())["package"]


@dataclass(frozen=True)
class Payload:
    """One body, and where it comes from."""

    place: str
    body: bytes
    content_type: str


def folder_of(package: dict[str, Any]) -> Path:
    """The package's files."""
    if package["registry"] == "npm":
        return unpacked(f"{package['name']}@{package['version']}", package["integrity"])
    folder = CACHE / "pypi-alone" / package["sha256"][:16]
    with made_once(folder) as is_new:
        if is_new:
            _downloaded(package, folder)
    return next(path for path in folder.iterdir() if path.is_dir())


def _downloaded(package: dict[str, Any], folder: Path) -> None:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}\n")
    kind = "--only-binary" if package.get("wheel") else "--no-binary"
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, package["name"], "--require-hashes"]
    done = subprocess.run([*asked, "-r", wanted, "-d", folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted.unlink()
    for archive in list(folder.iterdir()):
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder / "wheel")
        else:
            with tarfile.open(archive) as tarred:
                tarred.extractall(folder, filter="data")
        archive.unlink()


def payloads(folder: Path, take: dict[str, Any]) -> list[Payload]:
    """What one `take` finds in a package."""
    found = []
    for file in sorted(folder.glob(take["files"])):
        if file.name in take.get("but", ()):
            continue
        for number, (body, content_type, shown) in enumerate(_READERS[take["how"]](file)):
            inner = reach(shown, steps_of(take.get("inside", "")))
            if isinstance(inner, dict) and set(take.get("has", ())) <= set(inner):
                exact = body if inner is shown else json.dumps(inner).encode()
                found.append(Payload(f"{file.relative_to(folder)}#{number}", exact, content_type))
    return found


Read = Iterator[tuple[bytes, str, Any]]


def _json(file: Path) -> Read:
    raw = file.read_bytes()
    try:
        yield raw, JSON, json.loads(raw)
    except ValueError:
        return  # some stand there to be refused


def _form(file: Path) -> Read:
    raw = file.read_bytes().strip()
    yield raw, FORM, dict(parse_qsl(raw.decode()))


def _texts(file: Path) -> Read:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip().startswith("{"):
            try:
                yield node.value.encode(), JSON, json.loads(node.value, strict=False)
            except ValueError:
                continue


def _literals(file: Path) -> Read:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            try:
                value = ast.literal_eval(node)
                yield json.dumps(value).encode(), JSON, value
            except (ValueError, TypeError):
                continue


_READERS = {"json": _json, "form": _form, "json-in-python": _texts, "dict-in-python": _literals}
