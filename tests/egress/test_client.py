"""The client against real sockets on loopback: what it refuses, bounds, and reports."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp.abc import AbstractResolver

from egress.client import Answer, Client, default_tls
from schemas.errors import AddressRefused, AgentTimedOut, AgentUnreachable, BadSetting

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def guarded(reader, writer):
        try:
            await server(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


def saying(answer: bytes) -> Server:
    async def server(reader, writer):
        while True:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return server


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head, await reader.readexactly(length)


class Names(AbstractResolver):
    """A resolver whose answers are a script: one list of addresses per question, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": a, "port": port, "family": socket.AF_INET6 if ":" in a else socket.AF_INET, "proto": 0,
             "flags": socket.AI_NUMERICHOST}
            for a in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        pass


async def call(client: Client, port: int, **wanted) -> Answer:
    return await client.request("POST", f"http://127.0.0.1:{port}/wake", body=b"{}", **{"allow_private": True, **wanted})


async def test_the_answer_has_status_headers_and_body():
    async with (
        serving(saying(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 4\r\n\r\nwait")) as port,
        Client() as client,
    ):
        answer = await call(client, port)

    assert (answer.status, answer.headers["retry-after"], answer.body, answer.truncated) == (429, "7", b"wait", False)
    assert answer.elapsed_s > 0


async def test_the_body_and_headers_go_out_as_given():
    seen: list[tuple[bytes, bytes]] = []

    async def server(reader, writer):
        seen.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()

    async with serving(server) as port, Client(user_agent="Nightbell/1") as client:
        await client.request(
            "POST", f"http://127.0.0.1:{port}/a%2Fb?x=1", headers={"webhook-id": "inv_1"}, body=b'{"a":1}', allow_private=True
        )

    head, body = seen[0]
    assert body == b'{"a":1}'
    assert head.startswith(b"POST /a%2Fb?x=1 HTTP/1.1\r\n")
    assert b"webhook-id: inv_1" in head
    assert b"User-Agent: Nightbell/1" in head
    assert b"Accept-Encoding: identity" in head


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_a_strict_call_never_reaches_this_machine(host):
    reached: list[bytes] = []

    async def server(reader, writer):
        reached.append(await reader.read(1))

    async with serving(server) as port, Client() as client:
        with pytest.raises(AddressRefused):
            await client.request("GET", f"http://{host}:{port}/", allow_http=True)

    assert reached == []


async def test_a_name_that_resolves_to_an_inner_address_is_refused_at_the_connection():
    names = Names(["10.0.0.1"])

    async with Client(resolver=names) as client:
        with pytest.raises(AddressRefused) as refused:
            await client.request("GET", "https://agent.example/")

    assert names.asked == 1
    assert refused.value.fields["kind"] == "address"
    assert refused.value.fields["sent"] is False


async def test_a_name_with_several_inner_addresses_is_refused():
    async with Client(resolver=Names(["10.0.0.1", "fd00::1", "169.254.169.254"])) as client:
        with pytest.raises(AddressRefused):
            await client.request("GET", "https://agent.example/")


async def test_a_name_rebound_to_this_machine_after_a_check_is_refused():
    names = Names(["203.0.114.1"], ["127.0.0.1"])
    await names.resolve("agent.example")  # whoever checks first sees a public address

    async with Client(resolver=names, dns_ttl_s=0) as client:
        with pytest.raises(AddressRefused):
            await client.request("GET", "https://agent.example:8443/")


async def test_a_connection_opened_for_a_private_call_is_never_lent_to_a_strict_one():
    reached: list[bytes] = []

    async def server(reader, writer):
        while True:
            head, _ = await read_request(reader)
            reached.append(head)
            writer.write(OK)
            await writer.drain()

    async with serving(server) as port, Client(resolver=Names(["127.0.0.1"])) as client:
        url = f"http://agent.example:{port}/"
        await client.request("GET", url, allow_private=True)
        with pytest.raises(AddressRefused):
            await client.request("GET", url, allow_http=True)
        # The port alone would refuse that; the pool is asked by the same name on an allowed port as well.
        assert client._private is not client._strict
        assert client._private.connector is not client._strict.connector

    assert len(reached) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:1/", "https://other.example/", "//evil.example/", "file:///etc/passwd", "/again"]
)
async def test_a_redirect_is_an_answer_and_never_followed(status, location):
    requests: list[bytes] = []

    async def server(reader, writer):
        while True:
            requests.append((await read_request(reader))[0])
            writer.write(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()

    async with serving(server) as port, Client() as client:
        answer = await call(client, port, headers={"authorization": "Bearer x"})

    assert answer.status == status
    assert len(requests) == 1


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async with serving(saying(OK)) as port, Client() as client:
        answer = await call(client, port)

    assert answer.body == b"ok"


async def test_cookies_are_not_kept():
    seen: list[bytes] = []

    async def server(reader, writer):
        while True:
            seen.append((await read_request(reader))[0])
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()

    async with serving(server) as port, Client() as client:
        await call(client, port)
        await call(client, port)

    assert b"cookie" not in seen[1].lower()


async def test_an_answer_longer_than_the_cap_is_cut_and_its_connection_dropped():
    async with (
        serving(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)) as port,
        Client() as client,
    ):
        answer = await call(client, port, max_answer_bytes=1000)

    assert (len(answer.body), answer.truncated) == (1000, True)


async def test_an_answer_of_exactly_the_cap_is_whole():
    async with (
        serving(saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")) as port,
        Client() as client,
    ):
        answer = await call(client, port, max_answer_bytes=4)

    assert (answer.body, answer.truncated) == (b"abcd", False)


async def test_an_endless_answer_is_cut_at_the_cap():
    async def server(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"y" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(server) as port, Client() as client:
        answer = await call(client, port, max_answer_bytes=5000, timeout_s=5)

    assert (len(answer.body), answer.truncated) == (5000, True)


async def test_a_gzip_bomb_is_not_unpacked():
    packed = gzip.compress(b"\0" * 10_000_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()

    async with serving(saying(head + packed)) as port, Client() as client:
        answer = await call(client, port)

    assert answer.body == packed


async def test_an_answer_that_drips_ends_at_the_deadline_of_the_whole_call():
    async def server(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"z")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(server) as port, Client() as client:
        started = time.monotonic()
        with pytest.raises(AgentTimedOut) as failed:
            await call(client, port, timeout_s=0.2)

    assert time.monotonic() - started < 2
    assert (failed.value.fields["kind"], failed.value.fields["sent"]) == ("timeout", True)


async def test_silence_is_a_timeout_that_says_the_request_was_sent():
    async def server(reader, writer):
        await reader.read(-1)

    async with serving(server) as port, Client() as client:
        with pytest.raises(AgentTimedOut) as failed:
            await call(client, port, timeout_s=0.1)

    assert failed.value.fields["sent"] is True


async def test_a_handshake_that_never_ends_is_a_timeout_that_sent_nothing():
    async def server(reader, writer):
        await reader.read(-1)

    async with serving(server) as port, Client() as client:
        with pytest.raises(AgentTimedOut) as failed:
            await client.request("POST", f"https://127.0.0.1:{port}/", body=b"{}", timeout_s=0.2, allow_private=True)

    assert failed.value.fields["sent"] is False


async def test_a_reset_after_the_request_says_it_was_sent():
    async def server(reader, writer):
        await read_request(reader)

    async with serving(server) as port, Client() as client:
        with pytest.raises(AgentUnreachable) as failed:
            await call(client, port)

    assert (failed.value.fields["kind"], failed.value.fields["sent"]) == ("reset", True)


async def test_a_refused_connection_says_nothing_was_sent():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async with Client() as client:
            with pytest.raises(AgentUnreachable) as failed:
                await call(client, port)

    assert (failed.value.fields["kind"], failed.value.fields["sent"]) == ("refused", False)


async def test_a_name_without_an_address_says_so():
    class Nowhere(Names):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            raise OSError(None, "name not known")

    async with Client(resolver=Nowhere([])) as client:
        with pytest.raises(AgentUnreachable) as failed:
            await client.request("GET", "https://agent.example/")

    assert (failed.value.fields["kind"], failed.value.fields["sent"]) == ("dns", False)


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(100_000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\ncontent-length: 11\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no-http", "many-headers", "long-header", "bad-length", "two-lengths", "bad-chunk"],
)
async def test_an_answer_that_is_no_http_is_the_agents_failure(answer):
    async with serving(saying(answer)) as port, Client() as client:
        with pytest.raises(AgentUnreachable) as failed:
            await call(client, port, timeout_s=5)

    assert failed.value.fields["sent"] is True


async def test_invalid_utf8_is_kept_as_bytes():
    async with (
        serving(saying(b"HTTP/1.1 200 OK\r\nx-odd: \xff\xfe\r\ncontent-length: 2\r\n\r\n\xff\xfe")) as port,
        Client() as client,
    ):
        assert (await call(client, port)).body == b"\xff\xfe"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, *names: str, **settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **settings).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = default_tls()
    authority.configure_trust(context)
    return context


async def secure_call(client: Client, port: int) -> Answer:
    return await client.request("POST", f"https://localhost:{port}/", body=b"{}", allow_private=True, timeout_s=5)


async def test_a_trusted_certificate_is_accepted(authority):
    async with serving(saying(OK), tls_server(authority, "localhost")) as port, Client(tls=trusting(authority)) as client:
        assert (await secure_call(client, port)).status == 200


async def test_a_certificate_of_an_unknown_authority_is_refused(authority):
    async with serving(saying(OK), tls_server(authority, "localhost")) as port, Client() as client:
        with pytest.raises(AgentUnreachable) as failed:
            await secure_call(client, port)

    assert (failed.value.fields["kind"], failed.value.fields["sent"]) == ("tls", False)


async def test_a_certificate_for_another_host_is_refused(authority):
    async with serving(saying(OK), tls_server(authority, "other.example")) as port, Client(tls=trusting(authority)) as client:
        with pytest.raises(AgentUnreachable) as failed:
            await secure_call(client, port)

    assert failed.value.fields["kind"] == "tls"
    assert "ostname" in failed.value.detail


async def test_an_expired_certificate_is_refused(authority):
    import datetime as dt

    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    server = tls_server(authority, "localhost", not_before=past, not_after=past + dt.timedelta(days=1))
    async with serving(saying(OK), server) as port, Client(tls=trusting(authority)) as client:
        with pytest.raises(AgentUnreachable) as failed:
            await secure_call(client, port)

    assert failed.value.fields["kind"] == "tls"


async def test_tls_older_than_1_2_is_not_spoken():
    assert default_tls().minimum_version == ssl.TLSVersion.TLSv1_2
    assert default_tls().verify_mode == ssl.CERT_REQUIRED
    assert default_tls().check_hostname


async def test_plain_http_on_a_tls_port_is_a_tls_failure():
    async def server(reader, writer):
        await reader.read(10)
        writer.write(OK)
        await writer.drain()

    async with serving(server) as port, Client() as client:
        with pytest.raises(AgentUnreachable) as failed:
            await client.request("POST", f"https://127.0.0.1:{port}/", body=b"{}", allow_private=True, timeout_s=5)

    assert failed.value.fields["kind"] == "tls"
    assert failed.value.fields["sent"] is False


async def test_no_error_names_the_url_or_its_token():
    async with Client() as client:
        with pytest.raises(AgentUnreachable) as failed:
            await client.request("GET", "http://127.0.0.1:1/wake?token=s3cret", allow_private=True)

    assert "s3cret" not in f"{failed.value} {failed.value.fields}"


@pytest.mark.parametrize(("method", "headers"), [("POST", {"x": "a\r\nsecret: b"}), ("PO ST", {}), ("POST\r\nx", {})])
async def test_what_http_cannot_carry_is_the_operators_to_mend(method, headers):
    async with serving(saying(OK)) as port, Client() as client:
        with pytest.raises(BadSetting) as failed:
            await client.request(method, f"http://127.0.0.1:{port}/", headers=headers, body=b"", allow_private=True)

    assert "secret" not in str(failed.value)
    assert failed.value.fields["sent"] is False


async def test_cancelling_a_call_cancels_it():
    async def server(reader, writer):
        await reader.read(-1)

    async with serving(server) as port, Client() as client:
        running = asyncio.create_task(call(client, port))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_connections_are_reused():
    opened: list[int] = []

    async def server(reader, writer):
        opened.append(1)
        while True:
            await read_request(reader)
            writer.write(OK)
            await writer.drain()

    async with serving(server) as port, Client() as client:
        for _ in range(5):
            await call(client, port)

    assert len(opened) == 1


async def test_a_stream_gives_its_chunks_as_they_come():
    async def server(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for each in (b"data: 1\n\n", b"data: 2\n\n"):
            writer.write(each)
            await writer.drain()

    async with serving(server) as port, Client() as client:
        async with client.stream("GET", f"http://127.0.0.1:{port}/v1/events", allow_private=True) as (head, chunks):
            text = b"".join([chunk async for chunk in chunks])

    assert head.status == 200
    assert text == b"data: 1\n\ndata: 2\n\n"


async def test_a_stream_is_guarded_too():
    async with Client() as client:
        with pytest.raises(AddressRefused):
            async with client.stream("GET", "https://169.254.169.254/latest/meta-data/"):
                raise AssertionError("connected")


async def test_a_client_outside_its_block_refuses_to_call():
    with pytest.raises(RuntimeError):
        await Client().request("GET", "https://agent.example/")
