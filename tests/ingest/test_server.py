"""The edge on a real socket: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import zlib

import orjson
import pytest

from ingest.limits import Limits
from schemas.errors import LogUnavailable, Saturated
from schemas.event import from_headers
from tests.fakes.ingest_world import NOW_MS, config, serving

SECRET = "It's a Secret to Everybody"
BODY = b'{"action":"opened","issue":{"number":1347,"node_id":"I_1","title":"x"},"repository":{"full_name":"a/b"},"sender":{"login":"nora"}}'
GH = config("gh", "github", secrets=[SECRET])


def github(body: bytes = BODY, *, secret: str = SECRET, event: str = "issues") -> dict[str, str]:
    code = hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={code}",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "d-1",
        "Content-Type": "application/json",
    }


async def test_a_signed_request_is_durable_before_its_202():
    async with serving(GH) as w:
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            status, content = answer.status, await answer.read()

        assert (status, content) == (202, b"")
        (draft,) = w.log.drafts
        assert draft.topic == "nightbell.events.github"
        assert draft.key == "default/gh/I_1"
        assert draft.value == BODY
        assert draft.note[1] == orjson.loads(BODY)
        assert from_headers(draft.headers, draft.value) == draft.note[0]
        assert w.count("accepted") == 1


async def test_a_source_of_another_team_has_its_team_in_the_path():
    async with serving(config("gh", "github", team="ops", secrets=[SECRET])) as w:
        async with w.client().post(f"{w.url}/in/ops/gh", data=BODY, headers=github()) as answer:
            assert answer.status == 202
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            assert answer.status == 404

        assert w.log.drafts[0].note[0].team == "ops"


async def test_any_of_several_live_secrets_proves():
    async with serving(config("gh", "github", secrets=["old", SECRET])) as w:
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            assert answer.status == 202
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github(secret="old")) as answer:
            assert answer.status == 202


@pytest.mark.parametrize("spoil", ["missing", "wrong secret", "changed body", "old algorithm only", "twice"])
async def test_every_bad_signature_gets_the_same_401(spoil: str):
    headers, body = github(), BODY
    if spoil == "missing":
        del headers["X-Hub-Signature-256"]
    elif spoil == "wrong secret":
        headers = github(secret="other")
    elif spoil == "changed body":
        body = BODY.replace(b"1347", b"1348")
    elif spoil == "old algorithm only":
        headers["X-Hub-Signature"] = "sha1=" + hmac.new(SECRET.encode(), BODY, "sha1").hexdigest()
        del headers["X-Hub-Signature-256"]
    sent = [*headers.items()]
    if spoil == "twice":
        sent.append(("X-Hub-Signature-256", headers["X-Hub-Signature-256"]))
    async with serving(GH) as w:
        from multidict import CIMultiDict

        async with w.client().post(f"{w.url}/in/gh", data=body, headers=CIMultiDict(sent)) as answer:
            status, content, kind = answer.status, await answer.json(content_type=None), answer.content_type
        await w.ingest.refusals.flush()

        assert (status, kind) == (401, "application/problem+json")
        assert content == {
            "type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "The request could not be verified.", "code": "refused",
        }  # fmt: skip
        assert w.log.drafts == []
        assert w.count("bad_signature") == 1
        (kept,) = w.refusals.kept
        assert kept.step.startswith("signature_")
        assert kept.body_bytes == len(body)


async def test_an_unknown_source_is_404_and_a_strange_path_too():
    async with serving(GH) as w:
        for path in ["/in/nope", "/in/a/b/c", "/in/", "/", "/in/GH", "/in/..%2fgh", "/in/gh/", "/v1/sources"]:
            async with w.client().post(w.url + path, data=b"{}") as answer:
                assert (path, answer.status) == (path, 404)
                assert (await answer.json(content_type=None))["code"] == "not_found"


async def test_a_process_that_never_had_a_book_says_503_and_not_404():
    async with serving(GH, is_open=False) as w:
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "5"
            assert (await answer.json(content_type=None))["code"] == "not_ready"


async def test_a_method_that_the_provider_never_uses_is_405_with_those_it_does():
    async with serving(GH) as w:
        for method in ["GET", "DELETE", "PUT"]:
            async with w.client().request(method, f"{w.url}/in/gh") as answer:
                assert answer.status == 405
        async with w.client().get(f"{w.url}/in/gh") as answer:
            assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("secrets", [[""], ["   "], []])
async def test_a_blank_secret_is_503_and_never_accepts(secrets: list[str]):
    async with serving(config("gh", "github", secrets=secrets)) as w:
        blank = secrets[0] if secrets else ""
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github(secret=blank)) as answer:
            assert answer.status == 503
            assert (await answer.json(content_type=None))["code"] == "secrets_unavailable"
        assert w.log.drafts == []


@pytest.mark.parametrize(
    ("error", "code", "after"), [(LogUnavailable(), "log_unavailable", "5"), (Saturated(), "saturated", "1")]
)
async def test_a_log_that_cannot_take_it_is_503_with_retry_after(error: Exception, code: str, after: str):
    async with serving(GH) as w:
        w.log.error = error
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, after)
            assert (await answer.json(content_type=None))["code"] == code


async def test_a_body_beyond_the_sources_cap_is_413_however_it_is_framed():
    async def chunked():
        for _ in range(40):
            yield b"x" * 1000

    async with serving(config("gh", "github", secrets=[SECRET], max_body_bytes=2000)) as w:
        async with w.client().post(f"{w.url}/in/gh", data=b"x" * 2001) as answer:
            assert answer.status == 413
        async with w.client().post(f"{w.url}/in/gh", data=chunked()) as answer:
            assert answer.status == 413
        async with w.client().post(f"{w.url}/in/gh", data=b"x" * 2000) as answer:
            assert answer.status == 401
        assert w.ingest.flight.requests == 0
        assert w.ingest.flight.in_bytes == 0


async def test_a_body_that_does_not_arrive_is_408_and_the_connection_ends():
    async with serving(GH, limits=Limits(body_timeout_s=0.05)) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        writer.write(b"POST /in/gh HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")

        answer = await asyncio.wait_for(reader.read(), 5)

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
        writer.close()
        await writer.wait_closed()


async def test_a_sender_that_waits_for_100_continue_gets_it():
    async with serving(GH) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in github().items())
        writer.write(
            f"POST /in/gh HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{head}Content-Length: {len(BODY)}\r\n\r\n".encode()
        )

        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(BODY)
        second = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)

        assert first.startswith(b"HTTP/1.1 100 ")
        assert second.startswith(b"HTTP/1.1 202 ")
        writer.close()
        await writer.wait_closed()


async def test_signatures_cover_the_bytes_as_sent_and_gzip_is_undone_after_that():
    packed = gzip.compress(BODY)
    async with serving(GH) as w:
        headers = {**github(packed), "Content-Encoding": "gzip"}
        async with w.client().post(f"{w.url}/in/gh", data=packed, headers=headers) as answer:
            assert answer.status == 202
        headers = {**github(BODY), "Content-Encoding": "gzip"}
        async with w.client().post(f"{w.url}/in/gh", data=packed, headers=headers) as answer:
            assert answer.status == 401

        assert w.log.drafts[0].value == BODY


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"whatever", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415),
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(BODY)[:-9], 400),
        ("gzip", gzip.compress(b" " * 30_000_000), 413),
        ("deflate", zlib.compress(BODY), 202),
    ],
)
async def test_an_authentic_body_whose_coding_cannot_be_undone_is_refused(coding: str, body: bytes, status: int):
    async with serving(GH) as w:
        headers = {**github(body), "Content-Encoding": coding}
        async with w.client().post(f"{w.url}/in/gh", data=body, headers=headers) as answer:
            assert answer.status == status


async def test_a_rate_is_429_with_retry_after_and_no_other_source_suffers():
    async with serving(
        config("gh", "github", secrets=[SECRET], rate_per_s=2), config("other", "github", secrets=[SECRET])
    ) as w:
        statuses = []
        for _ in range(3):
            async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
                statuses.append(answer.status)
                after = answer.headers.get("Retry-After")
        async with w.client().post(f"{w.url}/in/other", data=BODY, headers=github()) as answer:
            other = answer.status
        w.times["steady_s"] += 0.6
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            later = answer.status

        assert statuses == [202, 202, 429]
        assert after == "1"
        assert (other, later) == (202, 202)


async def test_too_many_requests_in_flight_are_503_and_not_queued():
    async with serving(GH, limits=Limits(max_inflight_requests=1, body_timeout_s=5)) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.port)
        writer.write(b"POST /in/gh HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        await writer.drain()
        while w.ingest.flight.requests == 0:
            await asyncio.sleep(0)

        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        writer.close()
        await writer.wait_closed()
        del reader


async def test_a_challenge_is_answered_only_when_it_is_signed():
    body = b'{"type":"url_verification","challenge":"abc<script>"}'
    stamp = str(NOW_MS // 1000)
    code = hmac.new(b"s3cret", b"v0:" + stamp.encode() + b":" + body, "sha256").hexdigest()
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={code}", "Content-Type": "application/json"}
    async with serving(config("slack", "slack_events", secrets=["s3cret"])) as w:
        async with w.client().post(f"{w.url}/in/slack", data=body, headers=headers) as answer:
            got = (answer.status, await answer.text(), answer.content_type, answer.headers["X-Content-Type-Options"])
        async with w.client().post(f"{w.url}/in/slack", data=body) as answer:
            unsigned = answer.status

        assert got == (200, "abc<script>", "text/plain", "nosniff")
        assert unsigned == 401
        assert w.log.drafts == []


async def test_forwarded_headers_change_nothing():
    async with serving(GH) as w:
        headers = {**github(secret="other"), "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Host": "localhost"}
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=headers) as answer:
            assert answer.status == 401


async def test_no_credential_is_kept_with_a_refusal():
    async with serving(config("gl", "gitlab_token", secrets=["right"])) as w:
        headers = {
            "X-Gitlab-Token": "wrong-secret",
            "Authorization": "Bearer canary",
            "Cookie": "a=canary",
            "X-Gitlab-Event": "Push Hook",
        }
        async with w.client().post(f"{w.url}/in/gl", data=b"{}", headers=headers) as answer:
            assert answer.status == 401
        await w.ingest.refusals.flush()

        (kept,) = w.refusals.kept
        assert kept.step == "credential_mismatch"
        assert kept.headers["x-gitlab-event"] == "Push Hook"
        assert "canary" not in repr(kept)
        assert "wrong-secret" not in repr(kept)
        assert "x-gitlab-token" in kept.headers


async def test_a_flood_of_refusals_is_counted_and_not_kept():
    async with serving(GH) as w:
        for _ in range(30):
            async with w.client().post(f"{w.url}/in/gh", data=b"{}") as answer:
                assert answer.status == 401
        await w.ingest.refusals.flush()

        assert len(w.refusals.kept) <= 3
        assert w.count("bad_signature") == 30


async def test_the_same_delivery_twice_is_the_same_event_twice():
    async with serving(GH) as w:
        for _ in range(2):
            async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github()) as answer:
                assert answer.status == 202

        first, second = (draft.note[0] for draft in w.log.drafts)
        assert first.id == second.id
        assert first.traceparent != second.traceparent


async def test_an_unsigned_header_changes_neither_identity_nor_key():
    async with serving(GH) as w:
        for delivery in ["d-1", "d-2"]:
            headers = {**github(), "X-GitHub-Delivery": delivery}
            async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=headers) as answer:
                assert answer.status == 202

        first, second = (draft.note[0] for draft in w.log.drafts)
        assert (first.id, first.partitionkey) == (second.id, second.partitionkey)


async def test_a_type_header_that_does_not_fit_the_body_is_refused():
    async with serving(GH) as w:
        async with w.client().post(f"{w.url}/in/gh", data=BODY, headers=github(event="pull_request")) as answer:
            assert answer.status == 400


async def test_an_authentic_body_that_is_no_json_is_400():
    async with serving(GH) as w:
        async with w.client().post(f"{w.url}/in/gh", data=b'{"a":', headers=github(b'{"a":')) as answer:
            assert answer.status == 400
            assert (await answer.json(content_type=None))["code"] == "malformed"
        async with w.client().post(f"{w.url}/in/gh", data=b'{"a":') as answer:
            assert answer.status == 401
