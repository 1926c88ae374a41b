"""Characters that people do not see and models do: taken out of what outsiders wrote before an agent reads it."""

from __future__ import annotations

import re

# Characters that a reader does not see and a model does: controls (tab, line feed and carriage return stay), soft hyphen,
# zero-width and directional marks, fillers, variation selectors beyond the emoji one, tags (U+E0000-E007F), interlinear
# annotations, lone surrogates.  See "ASCII smuggling" and Trojan Source (CVE-2021-42574).
HIDDEN_RANGES = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\ud800-\udfff"
)
_HIDDEN = re.compile(f"[{HIDDEN_RANGES}]")


def without_hidden(text: str) -> tuple[str, int]:
    """`text` without characters that are not seen, and how many those were."""
    if text.isascii() and text.isprintable():
        return text, 0
    return _HIDDEN.subn("", text)
