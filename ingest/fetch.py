"""Vendors' published keys and confirmations, over the guarded client."""

from __future__ import annotations

from egress.client import Client
from ingest.ports import Fetch
from schemas.errors import AgentUnreachable

TIMEOUT_S = 2.0
MAX_BYTES = 64 * 1024


def guarded(client: Client) -> Fetch:
    """A `Fetch` over `client`: https only, public addresses only, no redirects, two seconds, 64 KiB."""

    async def fetch(url: str, posted: bytes = b"") -> bytes:
        answer = await client.request(
            "POST" if posted else "GET",
            url,
            headers={"Content-Type": "application/json"} if posted else None,
            body=posted or None,
            timeout_s=TIMEOUT_S,
            max_answer_bytes=MAX_BYTES,
        )
        if answer.status != 200 or answer.truncated:  # noqa: PLR2004 - nothing but OK has a key in it
            raise AgentUnreachable(f"the vendor's address answered {answer.status}")
        return answer.body

    return fetch
