"""Makes foreign text such that both databases take it."""

from __future__ import annotations


def kept(text: str) -> str:
    """`text` without what a database refuses: NUL (PostgreSQL) and lone surrogates (UTF-8) are replaced."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
