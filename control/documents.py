"""What operators write, read and checked whole: every flaw with its place, before anything is applied."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from control.problems import Flaw, Flawed
from schemas.config import AgentSpec, ContextSpec, LookupSpec, QuotaSpec, SourceSpec, Spec, SubscriptionSpec, is_name
from schemas.errors import AddressRefused, Invalid, NightbellError
from schemas.outcomes import OWN

DOCUMENT_VERSION = 1
SECTIONS: dict[str, type[Spec]] = {"sources": SourceSpec, "agents": AgentSpec, "subscriptions": SubscriptionSpec}
QUOTA = "quota"  # of the team that the document is applied to; the one part that is no section of names
SIGNING_PREFIX, LEAST_SIGNING_BYTES = "whsec_", 16
_NAME_RULE = "a name is lower-case letters, digits, _ and -, begins with a letter or digit, and has at most 63 characters"
_BRACES = re.compile(r"\{[^{}]*\}")
_S = TypeVar("_S", bound=Spec)


class UrlCheck(Protocol):
    """Refuses addresses that may not be called."""

    def __call__(self, url: str, *, allow_private: bool) -> object:
        """Raise `AddressRefused` or `Invalid` where `url` may not be called."""
        ...


@dataclass(frozen=True, slots=True)
class Checks:
    """What only other rooms can judge.  Each raises `Invalid`; its field `place` may say where inside, as a JSON pointer.

    `rule` judges a subscription's whole rule, whichever language it is written in; without it `pattern` judges the pattern
    alone.  `key` judges what dedups.
    """

    source: Callable[[str, SourceSpec], object]  # name, spec: is there such a provider, has the source what it asks for
    pattern: Callable[[Mapping[str, Any]], object]
    view: Callable[[str], object]
    url: UrlCheck
    protocol: Callable[[AgentSpec], object]
    rule: Callable[[SubscriptionSpec], object] | None = None
    key: Callable[[str], object] | None = None
    context: Callable[[ContextSpec], object] | None = None
    headers: Callable[[Mapping[str, str]], object] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed `nightbell.yaml`: the objects that it names."""

    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    agents: Mapping[str, AgentSpec] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionSpec] = field(default_factory=dict)
    quota: QuotaSpec | None = None


def read_document(raw: object, *, checks: Checks) -> Document:
    """The document that `raw` (the parsed file) is.  Raises `Flawed` with everything that is wrong in it."""
    flaws: list[Flaw] = []
    if not isinstance(raw, Mapping):
        raise Flawed([Flaw("", "the document is a mapping: version, sources, agents, subscriptions")])
    flaws += _odd_sections(raw)
    found = {section: dict(_read_section(section, raw.get(section), checks=checks, flaws=flaws)) for section in SECTIONS}
    quota = None
    if raw.get(QUOTA) is not None:
        try:
            quota = _parsed(QuotaSpec, raw[QUOTA], within=pointer(QUOTA))
        except Flawed as exc:
            flaws += exc.flaws
    if flaws:
        raise Flawed(flaws)
    return Document(**found, quota=quota)


def read_quota(raw: object) -> QuotaSpec:
    """A team's quota.  Raises `Flawed`."""
    return _parsed(QuotaSpec, raw, within="")


def _odd_sections(raw: Mapping[Any, Any]) -> Iterator[Flaw]:
    if raw.get("version") != DOCUMENT_VERSION:
        yield Flaw("/version", f"write `version: {DOCUMENT_VERSION}`" if "version" not in raw else "this build reads version 1")
    for name in raw:
        if name not in {"version", QUOTA} and name not in SECTIONS:
            yield Flaw(pointer(name), f"there is no section `{name}`{_nearest(str(name), [*SECTIONS, QUOTA, 'version'])}")


def _read_section(section: str, raw: object, *, checks: Checks, flaws: list[Flaw]) -> Iterator[tuple[str, Any]]:
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        flaws.append(Flaw(pointer(section), "this section is a mapping of names"))
        return
    for name, spec in raw.items():
        try:
            yield name, read_spec(section, name, spec, checks=checks, within=pointer(section, name))
        except Flawed as exc:
            flaws += exc.flaws


def read_spec(section: str, name: object, raw: object, *, checks: Checks, within: str = "") -> Spec:
    """The spec of one object of `section`.  `within` is the place of `raw` in its document.  Raises `Flawed`."""
    if not isinstance(name, str) or not is_name(name):
        raise Flawed([Flaw(within, f"`{name}` is no name: {_NAME_RULE}")])
    if section == "sources" and name == OWN:
        raise Flawed([Flaw(within, f"`{OWN}` is the source of our own events, what became of invocations: take another name")])
    spec = _parsed(SECTIONS[section], raw, within=within)
    flaws = list(_judged(name, spec, checks=checks, within=within))
    if flaws:
        raise Flawed(flaws)
    return spec


def read_rule(raw: Mapping[str, Any]) -> SubscriptionSpec:
    """The rule of a subscription that is only tried: what says which events, without whom they wake.  Raises `Flawed`."""
    return _parsed(SubscriptionSpec, {"agent": "nobody", **raw}, within="")


def _parsed(model: type[_S], raw: object, *, within: str) -> _S:
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        raise Flawed(flaws_of(errors, raw, model=model, within=within)) from None  # the cause may quote secrets


def flaws_of(errors: list[ErrorDetails], raw: object, *, model: type[Any], within: str = "") -> list[Flaw]:
    """Pydantic's errors about `raw` as flaws, each place once."""
    found: dict[str, Flaw] = {}
    for error in errors:
        place = within + pointer(*_real_place(error["loc"], raw))
        found.setdefault(place, Flaw(place, _sentence(error, model)))
    return list(found.values())


def _real_place(loc: tuple[int | str, ...], raw: object) -> Iterator[int | str]:
    # Pydantic adds the names of union branches to its places; only what leads into the document is kept.
    for part in loc:
        if isinstance(raw, Mapping):
            yield part
            if part not in raw:
                return
            raw = raw[part]
        elif isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw):
            yield part
            raw = raw[part]
        else:
            return


def _sentence(error: ErrorDetails, model: type[Any]) -> str:
    field_name = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return f"there is no field `{field_name}` here{_nearest(field_name, _fields_at(model, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"`{field_name}` is missing"
    return error["msg"].removeprefix("Value error, ")


def _fields_at(model: type[Any], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        inner = getattr(model, "model_fields", {}).get(part)
        if inner is None or not isinstance(inner.annotation, type):
            return []
        model = inner.annotation
    return list(getattr(model, "model_fields", {}))


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there are {', '.join(known)}" if known else ""


def _judged(name: str, spec: Spec, *, checks: Checks, within: str) -> Iterator[Flaw]:
    if isinstance(spec, SourceSpec):
        yield from _blank_secrets(spec, within=within)
        yield from _asked(within, lambda: checks.source(name, spec))
    elif isinstance(spec, AgentSpec):
        yield from _asked(f"{within}/protocol", lambda: checks.protocol(spec))
        yield from _judged_address(spec, checks=checks, within=within)
        odd = list(_odd_headers(spec, within=within))
        yield from odd
        if checks.headers is not None and not odd:
            judge = checks.headers
            yield from _asked(f"{within}/headers", lambda: judge(spec.headers))
        yield from _odd_secret(spec, within=within)
    elif isinstance(spec, SubscriptionSpec):
        yield from _judged_subscription(spec, checks=checks, within=within)


def _judged_address(spec: AgentSpec, *, checks: Checks, within: str) -> Iterator[Flaw]:
    if spec.is_pull:
        if spec.url:
            yield Flaw(f"{within}/url", "an agent of protocol pull fetches its work and is never called: leave `url` out")
    elif not spec.url:
        yield Flaw(f"{within}/url", "`url` is missing")
    else:
        yield from _asked(f"{within}/url", lambda: checks.url(spec.url, allow_private=spec.allow_private))


def _judged_subscription(spec: SubscriptionSpec, *, checks: Checks, within: str) -> Iterator[Flaw]:
    yield from _judged_rule(spec, checks=checks, within=within)
    if judge := checks.key:
        for place, key in _keys_of(spec):
            yield from _asked(f"{within}/{place}", lambda found=key: judge(found))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    flaws: list[Flaw] = []
    views = {"context/view": spec.context.view}
    for name, lookup in spec.context.enrich.items():
        place = f"context/enrich{pointer(name)}"
        views[f"{place}/view"] = lookup.view
        flaws += _asked(f"{within}/{place}/url", lambda found=lookup: _lookup_url(found, checks))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    for place, view in views.items():
        if view is not None:
            flaws += _asked(f"{within}/{place}", lambda found=view: checks.view(found))  # type: ignore[misc]  # as above
    if checks.context is not None and not flaws:
        judge_context = checks.context
        flaws += _asked(f"{within}/context", lambda: judge_context(spec.context))
    yield from flaws
    if spec.retry.max_delay < spec.retry.first_delay:
        yield Flaw(f"{within}/retry/max_delay", "`max_delay` is shorter than `first_delay`")


def _keys_of(spec: SubscriptionSpec) -> Iterator[tuple[str, str]]:
    """The expressions over the event's document that a subscription has beside its rule, each with its place."""
    if spec.dedup:
        yield "dedup/key", spec.dedup.key
    if spec.stale and spec.stale.version is not None:
        yield "stale/version", spec.stale.version
    for name in ("concurrency", "debounce", "batch"):
        part = getattr(spec, name)
        if part is not None and part.key is not None:
            yield f"{name}/key", part.key


def _judged_rule(spec: SubscriptionSpec, *, checks: Checks, within: str) -> Iterator[Flaw]:
    language = "cesql" if spec.cesql else "filters" if spec.filters else "pattern"
    rule = checks.rule
    if rule is None:
        yield from _asked(f"{within}/{language}", lambda: checks.pattern(spec.pattern))
        return
    bare = spec.model_copy(update={"when": None})
    flaws = list(_asked(f"{within}/{language}", lambda: rule(bare)))
    yield from flaws
    if spec.when is not None and not flaws:
        yield from _asked(f"{within}/when", lambda: rule(spec))


def _lookup_url(lookup: LookupSpec, checks: Checks) -> None:
    # What an event puts into the braces is encoded and stands in path or query only, so it cannot change what is checked here.
    authority = lookup.url.partition("://")[2].partition("/")[0].partition("?")[0]
    if "{" in authority or "}" in authority:
        raise Invalid("a lookup's host is written out: only its path and query take values of the event")
    checks.url(_BRACES.sub("x", lookup.url), allow_private=lookup.allow_private)


def _asked(place: str, check: Callable[[], object]) -> Iterator[Flaw]:
    try:
        check()
    except (Invalid, AddressRefused) as exc:
        yield Flaw(place + _inner_place(exc), exc.detail)


def _inner_place(exc: NightbellError) -> str:
    inner = str(exc.fields.get("place") or "")
    return inner if not inner or inner.startswith("/") else f"/{inner}"


def _blank_secrets(spec: SourceSpec, *, within: str) -> Iterator[Flaw]:
    for number, secret in enumerate(spec.secrets):
        if not secret.get_secret_value().strip():
            yield Flaw(f"{within}/secrets/{number}", "a blank secret would accept nothing: is the variable set?")
    if spec.password is not None and not spec.password.get_secret_value():
        yield Flaw(f"{within}/password", "a blank password would accept nothing: is the variable set?")


def _odd_headers(spec: AgentSpec, *, within: str) -> Iterator[Flaw]:
    for name, value in spec.headers.items():
        place = f"{within}/headers{pointer(name)}"
        if not name or not name.isascii() or not all(char.isalnum() or char in "!#$%&'*+-.^_`|~" for char in name):
            yield Flaw(place, "this is no name of a header")
        elif name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
            yield Flaw(place, "Nightbell writes this header itself")
        if any(char in value for char in "\r\n\0"):
            yield Flaw(place, "a header's value has no line breaks")


def _odd_secret(spec: AgentSpec, *, within: str) -> Iterator[Flaw]:
    if spec.secret is None:
        return
    text = spec.secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SIGNING_PREFIX) or len(key) < LEAST_SIGNING_BYTES:
        yield Flaw(
            f"{within}/secret",
            "an agent's secret is `whsec_` and at least 16 bytes in base64 (Standard Webhooks); leave it out and one is made",
        )


_OWN_HEADERS = frozenset(
    "host content-length content-type transfer-encoding connection idempotency-key traceparent user-agent".split()  # noqa: SIM905 - one line reads better
)


def pointer(*parts: object) -> str:
    """The JSON pointer (RFC 6901) of these parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


class DocumentShape(Spec):
    """A parsed `nightbell.yaml`, as OpenAPI describes it."""

    version: int
    sources: dict[str, SourceSpec] | None = None
    agents: dict[str, AgentSpec] | None = None
    subscriptions: dict[str, SubscriptionSpec] | None = None
    quota: QuotaSpec | None = None
