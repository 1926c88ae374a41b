"""The command that posts a body as a vendor would: send."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.text import Text

from control.cli_base import AsJson, bytes_of, gather, means_of, no, now_ms, wait_for
from control.client import http_client
from control.output import Output, plain
from schemas.errors import AgentFailed, Invalid, NotFound, NotReady

if TYPE_CHECKING:
    from egress.client import Answer
    from schemas.config import SourceSpec

TIMEOUT_S = 30.0
_SUCCESS = range(200, 300)


def send(
    ctx: typer.Context,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="As this vendor: nightbell providers list.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The body; - for stdin.")],
    *,
    to: Annotated[str | None, typer.Option("--to", help="The address; default: the one source of that provider.")] = None,
    secret_env: Annotated[str | None, typer.Option("--secret-env", help="The variable that holds the signing secret.")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="One more header, as in 'X-GitHub-Event: issues'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign and post a body as that vendor would.  Exit 1 says that it was refused."""
    from schemas.config import SourceSpec

    body = bytes_of(file)
    url = to or _only_source(ctx, provider)
    spec = SourceSpec.model_validate({"provider": provider, "secrets": _secrets(secret_env)})
    answer = wait_for(_posted(spec, url, body, _headers(header or [])))
    found = {"url": url, "status": answer.status, "answer": answer.body.decode("utf-8", "replace")}
    Output(as_json=as_json).document(found, lambda: Text(f"{answer.status}  {plain(found['answer'])}"))
    if answer.status not in _SUCCESS:
        raise no()


def _secrets(variable: str | None) -> list[str]:
    if variable is None:
        return []
    secret = os.environ.get(variable, "")
    if not secret:
        raise Invalid(f"the variable {variable} is not set, or blank")
    return [secret]


def _headers(lines: list[str]) -> list[tuple[str, str]]:
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Invalid(f"{line!r} is no header: it reads like 'X-GitHub-Event: issues'")
        found.append((name.strip(), value.strip()))
    return found


def _only_source(ctx: typer.Context, provider: str) -> str:
    named = [source for source in gather(ctx, "/v1/sources", {}) if source.get("provider") == provider]
    if not named:
        raise NotFound(f"there is no source of provider {provider}: say where with --to URL")
    if len(named) > 1:
        names = ", ".join(str(source["name"]) for source in named)
        raise Invalid(f"several sources are of provider {provider} ({names}): say which with --to URL")
    found: dict[str, Any] = named[0]
    path = urlsplit(str(found.get("url") or "")).path or f"/in/{found['name']}"
    return means_of(ctx).connection().ingest_url + path


async def _posted(spec: SourceSpec, url: str, body: bytes, headers: list[tuple[str, str]]) -> Answer:
    from ingest.sign import sign

    signed = sign(spec, method="POST", url=url, headers=headers, body=body, now_ms=now_ms())
    async with http_client() as client:
        try:
            return await client.request(
                signed.method,
                signed.url,
                headers=dict(signed.fields),
                body=signed.body,
                timeout_s=TIMEOUT_S,
                allow_private=True,
                allow_http=True,
            )
        except AgentFailed as exc:
            raise NotReady(f"no answer from {url}: {exc.detail}") from exc
