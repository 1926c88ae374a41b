"""The fence around what outsiders wrote: hidden characters out, a mark that they cannot guess around it."""

from __future__ import annotations

import hmac
import re
from typing import Any

from payload.hidden import HIDDEN_RANGES, without_hidden

# In JSON text controls are escapes: \u0000-\u001f, but \b \f stand for two of them.
_HIDDEN_IN_JSON = re.compile(f"[{HIDDEN_RANGES}]|\\\\u00[01]|\\\\[bf]")
_FENCE_LOOK = re.compile(
    r"(?i)[<⟨〈＜‹«\[]{1,3}\s*/?\s*(?:untrusted|trusted|nightbell|end|begin)[\s:_-]*[0-9a-f]*\s*[>⟩〉＞›»\]]{1,3}"
)
MARK_CHARS = 16


def may_hide(json_text: str) -> bool:
    """Whether a JSON text may hold hidden characters: a cheap look, so that most contexts are never walked."""
    if json_text.isascii():
        return ("\\" in json_text and _HIDDEN_IN_JSON.search(json_text) is not None) or "\x7f" in json_text
    return _HIDDEN_IN_JSON.search(json_text) is not None


def cleaned(value: Any) -> tuple[Any, int]:
    """`value` with every string and key freed of hidden characters, and how many there were in all."""
    removed = 0

    def clean(at: Any) -> Any:
        nonlocal removed
        kind = at.__class__
        if kind is str:
            text, count = without_hidden(at)
            removed += count
            return text
        if kind is list:
            return [clean(item) for item in at]
        if kind is dict:
            return {clean(key): clean(item) for key, item in at.items()}
        return at

    return clean(value), removed


def mark_for(secret: bytes, invocation_id: str) -> str:
    """The fence's mark: the same on every attempt of one invocation, and not to be guessed without `secret`."""
    return hmac.new(secret, b"nightbell-fence\0" + invocation_id.encode(), "sha256").hexdigest()[:MARK_CHARS]


def neutralised(text: str, mark: str) -> tuple[str, int]:
    """`text` in which nothing looks like our fence, and how many places did."""
    found, count = _FENCE_LOOK.subn(lambda match: "(" + match[0].strip("<>⟨⟩〈〉＜＞‹›«»[] ") + ")", text)
    if mark in found:
        found, more = re.subn(re.escape(mark), "(mark)", found)
        count += more
    return found, count


def fenced(text: str, *, mark: str) -> tuple[str, int]:
    """`text` between two lines that carry `mark`, look-alikes inside it neutralised, and how many there were."""
    inner, count = neutralised(text, mark)
    return f"<<untrusted {mark}>>\n{inner}\n<<end {mark}>>", count
