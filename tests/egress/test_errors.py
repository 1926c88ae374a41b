"""Every exception that aiohttp's client can raise has a word of ours."""

from __future__ import annotations

import asyncio
import inspect
import ssl

import aiohttp
import pytest
from aiohttp import client_exceptions

from egress.errors import KINDS, TRANSLATED, kind_of, translated
from schemas.errors import AgentTimedOut, AgentUnreachable

FOREIGN = sorted(
    {
        found
        for module in (aiohttp, client_exceptions)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, aiohttp.ClientError)
    },
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda each: each.__name__)
def test_each_client_exception_is_caught_and_has_a_kind_of_its_own(foreign):
    assert issubclass(foreign, TRANSLATED)
    mapped = next(known for known, _ in KINDS if issubclass(foreign, known))
    assert mapped is not aiohttp.ClientError or foreign == aiohttp.ClientError


def test_no_class_stands_behind_one_that_it_derives_from():
    for index, (known, kind) in enumerate(KINDS):
        for earlier, earlier_kind in KINDS[:index]:
            assert not (issubclass(known, earlier) and known is not earlier and kind != earlier_kind), (known, earlier)


@pytest.mark.parametrize(
    "exc", [TimeoutError(), aiohttp.ServerTimeoutError(), aiohttp.ConnectionTimeoutError(), aiohttp.SocketTimeoutError()]
)
def test_a_timeout_is_the_agents_time(exc):
    assert isinstance(translated(exc, sent=True, elapsed_s=1.0), AgentTimedOut)


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (aiohttp.ServerDisconnectedError(), "reset"),
        (aiohttp.ClientPayloadError("x"), "answer"),
        (ConnectionResetError(104, "Connection reset by peer"), "reset"),
        (asyncio.IncompleteReadError(b"", 1), "reset"),
        (ssl.SSLError(1, "[SSL] bad"), "tls"),
        (aiohttp.InvalidURL("https://x/?token=s3cret"), "url"),
        (aiohttp.ClientError("x"), "other"),
    ],
)
def test_other_failures_are_unreachable_with_a_kind(exc, kind):
    failure = translated(exc, sent=True, elapsed_s=0.5)

    assert isinstance(failure, AgentUnreachable)
    assert failure.fields["kind"] == kind == kind_of(exc)
    assert "s3cret" not in str(failure)


def test_what_never_left_is_never_called_sent():
    assert translated(aiohttp.ConnectionTimeoutError(), sent=True, elapsed_s=1).fields["sent"] is False
