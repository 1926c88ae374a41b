"""The request that the benches post: an 8 KB GitHub-shaped pull_request, signed, of any ordering key, in microseconds."""

from __future__ import annotations

import hashlib
import hmac
import json

SECRET = "bench-secret"
BODY_BYTES = 8192


def _filler() -> dict[str, str]:
    return {f"{name}_url": f"https://api.github.example/repos/acme/shop/{name}{{/sha}}" for name in _NAMES}


_NAMES = [
    "archive",
    "assignees",
    "blobs",
    "branches",
    "collaborators",
    "comments",
    "commits",
    "compare",
    "contents",
    "contributors",
    "deployments",
    "downloads",
    "events",
    "forks",
    "git_commits",
    "git_refs",
    "git_tags",
    "hooks",
    "issue_comment",
    "issue_events",
    "issues",
    "keys",
    "labels",
    "languages",
    "merges",
    "milestones",
    "notifications",
    "pulls",
    "releases",
    "stargazers",
    "statuses",
    "subscribers",
    "subscription",
    "tags",
    "teams",
    "trees",
]


class Shape:
    """Bytes of requests that differ in ring (a running number) and ordering key only; the common part is hashed once."""

    def __init__(self, *, path: str = "/in/github-bench", host: str = "127.0.0.1", body_bytes: int = BODY_BYTES) -> None:
        user = {"login": "nora", "id": 7, "type": "User", **_filler()}
        repository = {"id": 99, "full_name": "acme/shop", "private": False, "owner": user, **_filler()}
        head = {"action": "opened", "sender": user, "repository": repository}
        start = json.dumps(head, separators=(",", ":"))[:-1]
        tail_bytes = len(self._tail(0, 0))
        pad = body_bytes - len(start) - tail_bytes - len(',"note":""')
        self._start = f'{start},"note":"{"x" * max(pad, 0)}"'.encode()
        self._mac = hmac.new(SECRET.encode(), self._start, hashlib.sha256)
        self.length = len(self._start) + tail_bytes
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {self.length}\r\n"
            "X-GitHub-Event: pull_request\r\nX-GitHub-Delivery: 0000-"
        ).encode()

    @staticmethod
    def _tail(ring: int, key: int) -> bytes:
        return (
            f',"number":{key + 100000},"pull_request":{{"id":{key + 100000},"node_id":"PR_{key + 100000}","number":{key + 100000},'
            f'"title":"Checkout charges twice","user":{{"login":"nora"}},"additions":12,'
            f'"html_url":"https://github.example/acme/shop/pull/{key + 100000}","updated_at":"2026-11-21T10:00:00Z"}},"ring":{ring + 10**9}}}'
        ).encode()

    def body(self, ring: int, key: int) -> bytes:
        return self._start + self._tail(ring, key)

    def request(self, ring: int, key: int) -> bytes:
        """The whole HTTP/1.1 request."""
        tail = self._tail(ring, key)
        mac = self._mac.copy()
        mac.update(tail)
        head = b"%b%d\r\nX-Hub-Signature-256: sha256=%b\r\n\r\n" % (self._head, ring, mac.hexdigest().encode())
        return head + self._start + tail
