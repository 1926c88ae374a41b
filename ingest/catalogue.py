"""The catalogue of providers: TOML files, read, validated and compiled once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from ingest.choices import MAX_TYPES, Alternatives, Holds, KindTable, Rule, all_of, always, any_of
from ingest.fileform import Check, Choice, EventForm, Handshake, Option, ProviderFile
from ingest.inbound import Reply, Request
from ingest.kinds import KINDS
from ingest.schemes.base import KEY_ENCODINGS, Scheme
from ingest.schemes.registry import SCHEMES
from ingest.template import Scope, Template
from payload.pointer import Steps, steps_of
from schemas.config import SourceSpec
from schemas.errors import Invalid, NotFound

_TOLERANCE = Option(type="number", help="seconds that a signed time may be off, both ways")
_OF_TYPE: dict[str, tuple[type, ...]] = {
    "text": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "list": (list,),
}  # fmt: skip


class CompiledCheck:
    """One [[verify]]: when it applies, its scheme, what else must hold."""

    __slots__ = ("applies", "check", "each", "rules", "scheme", "takes_public_keys", "takes_time", "when_options")

    def __init__(self, check: Check) -> None:
        maker = SCHEMES.get(check.scheme)
        if maker is None:
            raise ValueError(f"scheme: {check.scheme!r} is none of {', '.join(SCHEMES)}")
        self.check = check
        self.scheme: Scheme = maker(check)
        self.applies: Holds = all_of(check.when)
        # What the source's options alone decide: used to say which secrets a source needs.
        self.when_options = all_of([condition for condition in check.when if condition.value.startswith("{option:")])
        self.rules = tuple(Rule(rule) for rule in check.require)
        self.each: Steps = steps_of(check.each)
        self.takes_time = check.time is not None or check.scheme == "identity_token"
        # The source's own come before those of the file or of the vendor's address.
        self.takes_public_keys = bool(check.keys or check.keys_from)


class CompiledHandshake:
    """One [[handshake]]."""

    __slots__ = ("applies", "body", "fetch", "fields", "form", "headers", "keep_secret", "rules")

    def __init__(self, form: Handshake) -> None:
        self.form = form
        self.applies: Holds = all_of(form.when)
        self.rules = tuple(Rule(rule) for rule in form.require)
        self.body = Template(form.body)
        self.fields = None if form.fields is None else _compiled_fields(form.fields)
        self.headers = tuple((name, Template(text)) for name, text in form.headers.items())
        self.keep_secret = Template(form.keep_secret) if form.keep_secret else None
        self.fetch = Template(form.fetch) if form.fetch else None


def _compiled_fields(value: Any) -> Any:
    if isinstance(value, str):
        return Template(value)
    if isinstance(value, dict):
        return {key: _compiled_fields(inner) for key, inner in value.items()}
    return [_compiled_fields(inner) for inner in value] if isinstance(value, list) else value


class EventPlan:
    """[event], [identity] and [kinds], compiled."""

    __slots__ = (
        "_shape_of", "actor", "batch", "batches", "delivery", "identity", "identity_kind", "key", "kind", "kinds", "shape",
        "skip", "subject", "summary", "time", "type", "url", "version", "window_ms",
    )  # fmt: skip

    def __init__(self, file: ProviderFile) -> None:
        event: EventForm = file.event
        self.batch: tuple[Steps, ...] = tuple(steps_of(pointer) for pointer in event.batch)
        self.batches: Holds = all_of(event.batch_when)
        self.type = Alternatives(event.type)
        self.kind = Alternatives(_known_kinds(event.kind)) if event.kind else None
        self.delivery = Alternatives(event.delivery)
        self.time = Alternatives(event.time)
        self.subject = Alternatives(event.subject)
        self.key = Alternatives(event.key)
        self.actor = Alternatives(event.actor)
        self.url = Alternatives(event.url)
        self.summary = Alternatives(event.summary)
        self.version = Alternatives(event.version)
        self.skip = any_of(event.skip)
        self.shape = tuple((shape.types, steps_of(shape.present)) for shape in event.shape)
        self.kinds = KindTable(file.kinds, KINDS)
        self.identity_kind = file.identity.kind
        self.identity = Alternatives(file.identity.delivery)
        self._shape_of: dict[str, tuple[Steps, ...]] = {}
        self.window_ms = round((file.identity.window or 0) * 1000)
        if (self.identity_kind == "delivery") != bool(file.identity.delivery):
            raise ValueError('identity.delivery goes with kind = "delivery"')

    def shape_of(self, event_type: str) -> tuple[Steps, ...]:
        """What must be in the body of an event of that type."""
        if not self.shape:
            return ()
        found = self._shape_of.get(event_type)
        if found is None:
            found = tuple(steps for globs, steps in self.shape if any(fnmatchcase(event_type, glob) for glob in globs))
            if len(self._shape_of) < MAX_TYPES:
                self._shape_of[event_type] = found
        return found


def _known_kinds(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    unknown = sorted({choice.value for choice in choices} - set(KINDS))
    if unknown:
        raise Invalid(f"no kind of the vocabulary: {', '.join(unknown)}")
    return choices


class Provider:
    """One provider, ready to use."""

    __slots__ = (
        "checks", "deliveries", "event", "family", "file", "form_steps", "handshakes", "key_encoding", "methods", "name",
        "options", "send_headers", "shown_headers", "signed_handshakes", "taken", "unsigned_handshakes",
    )  # fmt: skip

    def __init__(self, file: ProviderFile) -> None:
        self.file = file
        self.name = file.name
        self.family = file.family
        self.checks = tuple(CompiledCheck(check) for check in file.verify)
        self.handshakes = tuple(CompiledHandshake(form) for form in file.handshake)
        self.signed_handshakes = tuple(one for one in self.handshakes if one.form.signed)
        self.unsigned_handshakes = tuple(one for one in self.handshakes if not one.form.signed)
        self.deliveries = frozenset(file.request.methods)
        self.methods = self.deliveries | {method for form in file.handshake for method in form.methods}
        self.event = EventPlan(file)
        self.form_steps: Steps = (file.request.form_json,) if file.request.form_json else ()
        self.send_headers = {name: Alternatives(choices) for name, choices in file.send.headers.items()}
        self.shown_headers = frozenset(name.lower() for choices in _event_choices(file.event) for name in choices.headers())
        answer = file.request.answer
        self.taken = Reply(status=answer.status, body=answer.body.encode(), content_type=answer.content_type)
        # The key of answers that prove who we are is written as the first check's is.
        self.key_encoding = next((check.key for check in file.verify if check.key in KEY_ENCODINGS), "text")
        self.options: dict[str, Option] = dict(file.options)
        if any(check.takes_time for check in self.checks):
            self.options.setdefault("tolerance_s", _TOLERANCE)

    def as_json(self) -> dict[str, Any]:
        """What people and `--json` see of it."""
        file = self.file
        return {
            "name": self.name,
            "family": self.family,
            "title": file.title,
            "scheme": ", ".join(dict.fromkeys(described(check) for check in file.verify)),
            "confirmed": file.confirmed,
            "reason": file.reason,
            "steps": list(file.setup.steps),
            "secret": file.setup.secret,
            "needs": sorted(self.needs({})),
            "options": {
                name: option.model_dump(exclude_defaults=True, exclude={"type"}) | {"type": option.type}
                for name, option in self.options.items()
            },
            "handshakes": [form.name for form in file.handshake],
            "identity": file.identity.kind,
            "retries": file.retries.model_dump(),
            "ordering": file.ordering.model_dump(),
            "docs": {name: list(urls) if isinstance(urls, tuple) else [urls] for name, urls in file.docs.items()},
            "notes": list(file.notes),
        }

    def needs(self, options: Mapping[str, Any]) -> set[str]:
        """The fields of a source that its checks may use with these options: `secrets`, `public_keys`, `password`."""
        return {check.scheme.needs() for check in self._possible(options)} - {""}

    def may_take(self, options: Mapping[str, Any]) -> set[str]:
        """The fields that a source may have without need: a key of its own, or what the vendor's key is asked for with."""
        possible = self._possible(options)
        posts = any(check.check.keys_from and check.check.keys_from.post for check in possible)
        return {"public_keys" for check in possible if check.takes_public_keys} | ({"secrets"} if posts else set())

    def _possible(self, options: Mapping[str, Any]) -> list[CompiledCheck]:
        scope = Scope(Request("POST", "", (), b""), self.with_defaults(options))
        return [check for check in self.checks if check.when_options is always or check.when_options(scope)]

    def with_defaults(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A source's options, with this provider's defaults beneath them."""
        found = {name: option.default for name, option in self.options.items() if option.default is not None}
        return {**found, **options}

    def can_start_without_secrets(self) -> bool:
        """Whether the secret arrives in a handshake, while the source is in set-up."""
        return any(one.keep_secret is not None for one in self.handshakes)


def _event_choices(event: EventForm) -> list[Alternatives]:
    return [Alternatives(choices) for choices in (event.type, event.delivery, event.time, event.subject, event.version)]


def described(check: Check) -> str:
    """A check in a few words: `HMAC-SHA256`."""
    if check.scheme == "mac":
        algorithm = "chosen by the source" if check.algorithm.startswith("$") else check.algorithm.upper()
        return f"HMAC-{algorithm}" if check.construction == "hmac" else f"{algorithm} with secret"
    if check.scheme == "shared_secret":
        return "Basic" if check.credentials == "basic" else "shared secret"
    if check.scheme == "identity_token":
        return f"JWT {check.algorithm}"
    return check.algorithm.replace("_", "-") if check.scheme == "public_key" else check.scheme


def read_file(text: str, place: str) -> Provider:
    """The provider that a TOML text describes.  Raises `Invalid`, with the place and what would be right."""
    try:
        return Provider(ProviderFile.model_validate(tomllib.loads(text)))
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        raise Invalid(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    except (tomllib.TOMLDecodeError, ValueError, Invalid) as exc:
        raise Invalid(f"{place}: {exc}") from exc


@cache
def catalogue() -> Mapping[str, Provider]:
    """All providers by name.  Raises `Invalid` where a file is wrong."""
    found: dict[str, Provider] = {}
    for entry in sorted(files("ingest").joinpath("providers").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            provider = read_file(entry.read_text(encoding="utf-8"), entry.name)
            if provider.name != entry.name.removesuffix(".toml"):
                raise Invalid(f"{entry.name}: name is {provider.name!r}; it must be the file's stem")
            found[provider.name] = provider
    return found


def provider_named(name: str) -> Provider:
    """The provider of that name.  Raises `NotFound`, naming what is near."""
    found = catalogue().get(name)
    if found is None:
        near = get_close_matches(name, catalogue(), n=3, cutoff=0.5)
        hint = f"; is it {' or '.join(near)}?" if near else "; nightbell providers list shows all"
        raise NotFound(f"there is no provider {name!r}{hint}")
    return found


provider = provider_named


def check_source(spec: SourceSpec) -> None:
    """Raise `Invalid` (or `NotFound`) unless `spec` has what its provider asks for, and nothing that it does not know."""
    found = provider_named(spec.provider)
    _check_options(found, spec.options)
    needed = found.needs(spec.options)
    given = _given(spec)
    for name in sorted(given - needed - found.may_take(spec.options)):
        asked = " or ".join(sorted(needed)) or "no secret"
        raise Invalid(f"{found.name} takes {asked}, not {name}")
    if needed and not given and not found.can_start_without_secrets():
        raise Invalid(f"{found.name} needs {' or '.join(sorted(needed))}: {found.file.setup.secret}".rstrip(": "))
    if any(not secret.get_secret_value().strip() for secret in spec.secrets):
        raise Invalid("a secret is blank")
    if "password" in given and not (spec.password and spec.password.get_secret_value().strip()):
        raise Invalid("the password is missing or blank")
    _check_keys(spec)


def _given(spec: SourceSpec) -> set[str]:
    fields = {"secrets": spec.secrets, "public_keys": spec.public_keys, "password": spec.username or spec.password}
    return {name for name, value in fields.items() if value}


def _check_options(provider: Provider, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        option = provider.options.get(name)
        if option is None:
            known = ", ".join(sorted(provider.options)) or "none"
            raise Invalid(f"{provider.name} has no option {name!r}; it has: {known}")
        wanted = _OF_TYPE[option.type]
        if not isinstance(value, wanted) or (isinstance(value, bool) and option.type != "boolean"):
            raise Invalid(f"the option {name} of {provider.name} is {option.type}: {option.help}")
        if option.one_of and value not in option.one_of:
            raise Invalid(f"the option {name} of {provider.name} is one of {', '.join(option.one_of)}")
        if name == "tolerance_s" and isinstance(value, int | float) and not value > 0:
            raise Invalid("tolerance_s is a number of seconds above 0")
    for name, option in provider.options.items():
        if option.required and name not in options:
            raise Invalid(f"{provider.name} needs the option {name}: {option.help}")


def _check_keys(spec: SourceSpec) -> None:
    from ingest.schemes.keys import public_key

    for text in spec.public_keys:
        try:
            public_key(text)
        except ValueError as exc:
            raise Invalid(f"a public key of the source cannot be read: {exc}") from exc
