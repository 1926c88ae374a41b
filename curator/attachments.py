"""Files in bodies, told by their type and size: their bytes are fetched by reference."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from curator.budget import Path

MIN_CHARS = 600  # shorter ones are keys, digests and signatures
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.=-]+)*;base64,")
# One run of base64, or lines of it as mail has them.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_=-]{40,}\r?\n)*[A-Za-z0-9+/_=-]+\s*")


def reference(text: str) -> str | None:
    """What stands for a file that is written as base64: its type, where that is said, and its bytes; None for other texts."""
    if len(text) < MIN_CHARS:
        return None
    uri = _DATA_URI.match(text)
    start = uri.end() if uri else 0
    if _BASE64.fullmatch(text, start) is None:
        return None
    kind = f"{uri[1]}, " if uri and uri[1] else ""
    letters = len(text) - start - sum(text.count(other, start) for other in "=\r\n")
    return f"[{kind}{letters * 3 // 4} bytes, by reference]"


def referenced(value: Any, required: Collection[Path] = ()) -> Any:
    """`value` with references in the place of files, apart from what is required."""
    return _walked(value, (), required) if _has_long(value) else value


def _has_long(value: Any) -> bool:
    waiting = [value]
    while waiting:
        at = waiting.pop()
        kind = at.__class__
        if kind is str:
            if len(at) >= MIN_CHARS:
                return True
        elif kind is dict:
            waiting.extend(at.values())
        elif kind is list:
            waiting.extend(at)
    return False


def _walked(at: Any, path: Path, required: Collection[Path]) -> Any:
    kind = at.__class__
    if path in required:
        return at
    if kind is str:
        return reference(at) or at
    if kind is dict:
        return {key: _walked(item, (*path, key), required) for key, item in at.items()}
    if kind is list:
        return [_walked(item, (*path, index), required) for index, item in enumerate(at)]
    return at
