"""Requests that are answered instead of taken: challenges, pings, tests."""

from __future__ import annotations

from typing import Any

import orjson

from ingest.catalogue import CompiledHandshake
from ingest.inbound import Reply
from ingest.prepared import PreparedSource
from ingest.schemes.key_source import is_vendors
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template
from schemas.errors import MalformedRequest, Refused, SecretsUnavailable

_MAX_REFLECTED = 8192


def answer(handshakes: tuple[CompiledHandshake, ...], scope: Scope, source: PreparedSource) -> Reply | None:
    """The reply of the first handshake that this request is, or None where it is none of them.

    Raises `Unproven` where a secret or a call is asked for that may not be, `SecretsUnavailable` where the answer must be
    signed and there is no secret.
    """
    for one in handshakes:
        if scope.request.method in one.form.methods and _applies(one, scope):
            return _reply(one, scope, source)
    return None


def _applies(one: CompiledHandshake, scope: Scope) -> bool:
    try:
        return one.applies(scope)
    except Refused:
        return False  # a body that cannot be read is no handshake; what it is, the check will say


def _reply(one: CompiledHandshake, scope: Scope, source: PreparedSource) -> Reply:
    form = one.form
    scope.key = _newest_key(source)
    try:
        for rule in one.rules:
            rule.demand(scope)
    except Unproven:
        return Reply(status=form.refusal, name=form.name)
    kept = _kept(one, scope, source)
    headers = {name: _header(template, scope) for name, template in one.headers}
    body, content_type = _body(one, scope)
    return Reply(
        status=form.status,
        body=body,
        content_type=content_type,
        headers=headers,
        kept_secret=kept,
        fetch_url=_address(one, scope),
        name=form.name,
    )


def _newest_key(source: PreparedSource) -> bytes:
    try:
        return source.credentials.keys(source.provider.key_encoding)[0]
    except SecretsUnavailable:
        return b""


def _body(one: CompiledHandshake, scope: Scope) -> tuple[bytes, str]:
    if one.fields is not None:
        try:
            return orjson.dumps(_filled(one.fields, scope)), "application/json"
        except TypeError as exc:
            raise MalformedRequest("what the handshake asks to be told is no UTF-8") from exc
    return _text(one.body, scope).encode("utf-8", "replace"), one.form.content_type


def _filled(value: Any, scope: Scope) -> Any:
    if isinstance(value, Template):
        return _text(value, scope)
    if isinstance(value, dict):
        return {key: _filled(inner, scope) for key, inner in value.items()}
    return [_filled(inner, scope) for inner in value] if isinstance(value, list) else value


def _text(template: Template, scope: Scope) -> str:
    if "|mac:" in template.source and not scope.key:
        raise SecretsUnavailable
    found = template.text(scope)
    if found is None:
        raise MalformedRequest("the challenge is not where it should be")
    if len(found) > _MAX_REFLECTED:
        raise MalformedRequest("the challenge is too long")
    return found


def _header(template: Template, scope: Scope) -> str:
    found = _text(template, scope)
    if not found.isascii() or not found.isprintable():
        raise MalformedRequest("the challenge holds what no header may hold")
    return found


def _kept(one: CompiledHandshake, scope: Scope, source: PreparedSource) -> str:
    if one.keep_secret is None:
        return ""
    if any(secret.strip() for secret in source.credentials.secrets):
        # Set-up is over: whoever sends a new key now would lock the vendor out and himself in.
        raise Unproven(Step.REQUIREMENT, "this source has its secret already; a new one is set by the operator only")
    found = _text(one.keep_secret, scope)
    if not found.strip():
        raise MalformedRequest("the secret that the handshake brings is blank")
    return found


def _address(one: CompiledHandshake, scope: Scope) -> str:
    if one.fetch is None:
        return ""
    url = _text(one.fetch, scope)
    if not is_vendors(url, one.form.fetch_hosts, None):
        raise Unproven(Step.KEY_ADDRESS, "the request asks for a call to an address that is not the vendor's")
    return url
