"""The one comparison of secrets and signatures."""

from __future__ import annotations

import hmac


def same(left: bytes, right: bytes) -> bool:
    """Whether both are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(left, right)
