"""Commands about vendors: the catalogue, and what a captured request proves or becomes."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.capture import Captured, read_capture
from control.cli_base import AsJson, bytes_of, group, instant_of, json_lines, no, now_ms, wait_for
from control.client import http_client
from control.output import Column, Output, fields, plain
from schemas.errors import Invalid, NightbellError
from schemas.times import ms_of

if TYPE_CHECKING:
    from control.proving import Verdict
    from schemas.config import SourceSpec

providers = group("Vendors: what is supported, how to set each up, what a captured request proves.")

PROVIDER_COLUMNS: tuple[Column, ...] = (
    ("name", "name"),
    ("family", "family"),
    ("title", "title"),
    ("scheme", "scheme"),
    ("confirmed", "confirmed"),
)
KEY_FETCH_TIMEOUT_S = 10.0
_SUCCESS = range(200, 300)
_LINE = '{"provider": …, "source": {…}, "method": …, "url": …, "headers": [[name, value]…], "body_b64": …, "now_unix": …}'

OfProvider = Annotated[str | None, typer.Option("--provider", help="The vendor: nightbell providers list.")]
SecretEnv = Annotated[list[str] | None, typer.Option("--secret-env", help="A variable that holds a secret; may be repeated.")]
PublicKey = Annotated[list[Path] | None, typer.Option("--public-key", help="A file with a public key; may be repeated.")]
User = Annotated[str | None, typer.Option("--username", help="For vendors that sign in with name and password.")]
PasswordEnv = Annotated[str | None, typer.Option("--password-env", help="The variable that holds the password.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="One of the provider's options, name=value; may be repeated.")
]
PublicUrl = Annotated[
    str | None, typer.Option("--url", help="The URL that the vendor called, where the capture has only its path.")
]
At = Annotated[str | None, typer.Option("--at", help="Check as of this instant (ISO 8601, or a span ago), not of now.")]
RequestFile = Annotated[
    str | None, typer.Argument(metavar="REQUEST", help="A raw HTTP/1.1 message or a HAR entry; - for stdin.")
]
JsonLinesIn = Annotated[str | None, typer.Option("--jsonl", help="A file of JSON lines (- for stdin), answered line by line.")]


@providers.command("list")
def list_providers(*, as_json: AsJson = False) -> None:
    """The catalogue."""
    from ingest.catalogue import catalogue

    found = [provider.as_json() for provider in catalogue().values()]
    Output(as_json=as_json).items(found, PROVIDER_COLUMNS, none="no providers")


@providers.command("show")
def show_provider(name: Annotated[str, typer.Argument(metavar="NAME")], *, as_json: AsJson = False) -> None:
    """The steps on the vendor's side, the URL to paste, the secret to copy."""
    from ingest.catalogue import provider_named

    found = provider_named(name).as_json()
    Output(as_json=as_json).document(found, lambda: provider_shown(found))


def provider_shown(found: Mapping[str, Any]) -> RenderableType:
    """A vendor for people."""
    head = fields({name: value for name, value in found.items() if name not in {"steps", "notes"}})
    steps = [Text(f"  {number}. {plain(step)}") for number, step in enumerate(found.get("steps") or [], start=1)]
    notes = [Text(f"  {plain(note)}") for note in found.get("notes") or []]
    parts: list[RenderableType] = [head, Text("\nOn the vendor's side", style="bold"), *steps]
    return Group(*parts, *([Text("\nNotes", style="bold"), *notes] if notes else []))


@providers.command("verify")
def verify(
    request: RequestFile = None,
    *,
    provider: OfProvider = None,
    secret_env: SecretEnv = None,
    public_key: PublicKey = None,
    username: User = None,
    password_env: PasswordEnv = None,
    option: Options = None,
    url: PublicUrl = None,
    at: At = None,
    jsonl: JsonLinesIn = None,
    as_json: AsJson = False,
) -> None:
    """Does this captured request prove its vendor, and if not, which step failed?  Exit 1 says that it does not."""
    from control.proving import verdict_on

    if jsonl is not None:
        _verify_lines(jsonl)
        return
    written: dict[str, Any] = {
        "provider": _demanded(provider, request),
        "secrets": [_secret(name) for name in secret_env or []],
        "public_keys": [bytes_of(str(path)).decode("utf-8", "replace") for path in public_key or []],
        "options": dict(map(_option, option or [])),
    }
    if username is not None or password_env is not None:
        written |= {"username": username, "password": _secret(password_env) if password_env else None}
    instant = instant_of(at, now_ms=now_ms())
    captured = read_capture(bytes_of(request or "-"), url=url)
    verdict = verdict_on(captured, _spec(written), now_ms=ms_of(instant) if instant else now_ms(), fetch=fetched_key)
    Output(as_json=as_json).document(verdict.as_json(), lambda: verdict_shown(verdict))
    if not verdict.ok:
        raise no()


def verdict_shown(verdict: Verdict) -> RenderableType:
    """A verdict for people."""
    if verdict.ok:
        what = f"handshake {verdict.handshake}" if verdict.handshake else f"{verdict.type or 'no event'}  {verdict.deliveryid}"
        return Text(f"proven  {plain(what.strip())}", style="green")
    lines = [Text(f"not proven: {verdict.step}", style="red"), Text(f"  {plain(verdict.error)}")]
    return Group(*lines, *(Text(f"  {plain(hint)}") for hint in verdict.hints))


@providers.command("normalize")
def normalize(
    request: RequestFile = None,
    *,
    provider: OfProvider = None,
    option: Options = None,
    url: PublicUrl = None,
    jsonl: JsonLinesIn = None,
    as_json: AsJson = False,
) -> None:
    """The events that a captured request would become, unverified: for trying out."""
    from control.proving import events_in

    if jsonl is not None:
        _normalize_lines(jsonl)
        return
    spec = _spec({"provider": _demanded(provider, request), "options": dict(map(_option, option or []))})
    found = events_in(read_capture(bytes_of(request or "-"), url=url), spec, now_ms=now_ms())
    out = Output(as_json=as_json)
    for event in found:
        if as_json:
            out.json_line(event)
        else:
            out.show(fields(event))
    if not found:
        out.say("no events: the vendor's file passes this over")


def _demanded(provider: str | None, request: str | None) -> str:
    if provider is None or request is None:
        raise Invalid("give --provider NAME and a REQUEST, or --jsonl FILE")
    return provider


def _secret(variable: str) -> str:
    secret = os.environ.get(variable, "")
    if not secret:
        raise Invalid(f"the variable {variable} is not set, or blank")
    return secret


def _option(text: str) -> tuple[str, str | int | float | bool]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(f"{text!r} is no option: it reads like tolerance_s=600")
    return name, _typed(value)


def _typed(value: str) -> str | int | float | bool:
    if value in {"true", "false"}:
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _spec(written: Mapping[str, Any]) -> SourceSpec:
    from pydantic import ValidationError

    from schemas.config import SourceSpec

    try:
        return SourceSpec.model_validate(written)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        raise Invalid(f"source: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None  # the cause may quote secrets


def _verify_lines(source: str) -> None:
    from control.proving import verdict_on

    out = Output(as_json=True)
    for _, line, wrong in json_lines(source):
        try:
            captured, spec, at_ms = _line(line, wrong)
        except Invalid as exc:
            out.json_line({"ok": False, "step": "line", "error": exc.detail})
        else:
            out.json_line(verdict_on(captured, spec, now_ms=at_ms, fetch=fetched_key).as_json())


def _normalize_lines(source: str) -> None:
    from control.proving import events_in

    out = Output(as_json=True)
    for _, line, wrong in json_lines(source):
        try:
            captured, spec, at_ms = _line(line, wrong)
            found = events_in(captured, spec, now_ms=at_ms)
        except NightbellError as exc:
            out.json_line({"error": exc.detail})
        else:
            out.json_line({"events": found})


def _line(line: Any, wrong: str) -> tuple[Captured, SourceSpec, int]:
    if wrong or not isinstance(line, dict):
        raise Invalid(wrong or f"a line reads {_LINE}")
    try:
        headers = tuple((str(name), str(value)) for name, value in line.get("headers") or [])
        body = base64.b64decode(line.get("body_b64") or "", validate=True)
        at_ms = round(float(line["now_unix"]) * 1000) if line.get("now_unix") is not None else now_ms()
        source = {**(line.get("source") or {}), "provider": line["provider"]}
        captured = Captured(str(line.get("method") or "POST").upper(), str(line.get("url") or ""), headers, body)
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise Invalid(f"a line reads {_LINE}") from exc
    return captured, _spec(source), at_ms


@cache
def fetched_key(url: str) -> bytes | None:
    """What a vendor publishes at `url` (an address that its file allows); None where it cannot be had."""
    return wait_for(_fetched(url))


async def _fetched(url: str) -> bytes | None:
    async with http_client() as client:
        try:
            answer = await client.request("GET", url, timeout_s=KEY_FETCH_TIMEOUT_S)
        except NightbellError:
            return None
    return answer.body if answer.status in _SUCCESS and not answer.truncated else None
