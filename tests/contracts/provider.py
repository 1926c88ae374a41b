"""What every provider owes: bad requests, derived from a good one, that must never be taken.

`mutants` makes them from a vector by the provider's own check: each is a request, a source and an instant.  A mutant is refused
when `receive` raises `BadSignature` or `SecretsUnavailable` (or says that the body cannot be read, where the check needs it).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
from pydantic import SecretStr

from ingest.catalogue import CompiledCheck, Provider
from ingest.fileform import Vector
from ingest.inbound import Request
from ingest.prepared import PreparedSource
from ingest.samples import request_of, source_of, spec_of
from ingest.sign import put, urlencoded, with_value
from ingest.template import Scope, Template
from payload.pointer import MISSING, reach, steps_of
from schemas.config import SourceConfig, SourceSpec

COVERING = (
    "{body",
    "{content",
    "{form_pairs",
    "{php_form",
    "{sorted_params",
    "{first_element",
    "{escaped_body",
    "{form:",
)


@dataclass(frozen=True)
class Mutant:
    name: str
    request: Request
    source: PreparedSource
    now_ms: int


@dataclass(frozen=True)
class Good:
    """A vector, taken apart."""

    provider: Provider
    vector: Vector
    check: CompiledCheck
    request: Request

    def mutant(
        self, name: str, *, request: Request | None = None, spec: SourceSpec | None = None, now_s: float | None = None
    ) -> Mutant:
        source = source_of(self.provider, self.vector)
        if spec is not None:
            fetched = {url: text.encode() for url, text in self.vector.fetched.items()}
            source = PreparedSource(SourceConfig("default", "source", "uid", spec), self.provider, fetched=fetched.get)
        return Mutant(name, request or self.request, source, round((self.vector.now if now_s is None else now_s) * 1000))


def good(provider: Provider, vector: Vector) -> Good:
    request = request_of(vector)
    scope = Scope(request, source_of(provider, vector).options)
    check = next(check for check in provider.checks if check.applies(scope))
    return Good(provider, vector, check, request)


def mutants(provider: Provider, vector: Vector) -> Iterator[Mutant]:
    """At least thirty for a check that signs something."""
    it = good(provider, vector)
    yield from _bodies(it)
    yield from _signatures(it)
    yield from _times(it)
    yield from _credentials(it)
    yield from _signed_headers(it)
    yield from _addresses(it)


def _with(
    request: Request, *, body: bytes | None = None, headers: list[tuple[str, str]] | None = None, url: str | None = None
) -> Request:
    return Request(
        request.method,
        request.url if url is None else url,
        request.fields if headers is None else headers,
        request.body if body is None else body,
    )


def covers_body(check: CompiledCheck) -> bool:
    texts = [*check.check.signed, *(rule.equals for rule in check.check.require), *(rule.value for rule in check.check.require)]
    return any(mark in text for text in texts for mark in COVERING) or any(text.startswith("$") for text in check.check.signed)


def _bodies(it: Good) -> Iterator[Mutant]:
    body = it.request.body
    if not covers_body(it.check) or not body:
        return
    if any("{first_element" in text for text in it.check.check.signed):
        changed = {"bit": bytes([body[len(body) // 4] ^ 1])}
        yield it.mutant(
            "body, one bit",
            request=_with(it.request, body=body[: len(body) // 4] + changed["bit"] + body[len(body) // 4 + 1 :]),
        )
        return
    fields = {name for text in it.check.check.signed for name in re.findall(r"\{form:(\w+)", text)}
    if fields:
        yield from _form_values(it, fields)
        return
    if any("{form" in text or "{sorted" in text or "{php" in text for text in it.check.check.signed):
        yield it.mutant("body, one field more", request=_with(it.request, body=body + b"&zzextra=1"))
        return
    for at in sorted({0, len(body) // 3, len(body) // 2, len(body) - 1}):
        for bit in (0x01, 0x20):
            flipped = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
            yield it.mutant(f"body, bit {bit} at {at}", request=_with(it.request, body=flipped))
    yield it.mutant("body, a newline more", request=_with(it.request, body=body + b"\n"))
    yield it.mutant("body, cut", request=_with(it.request, body=body[:-1]))
    yield it.mutant("body, empty", request=_with(it.request, body=b""))
    yield it.mutant("body, twice", request=_with(it.request, body=body + body))


def _form_values(it: Good, signed: set[str]) -> Iterator[Mutant]:
    """Where only some fields of a form are signed: each of them changed, in the way that bodies are."""
    given = it.request.form()

    def with_field(name: str, value: str) -> Request:
        return _with(it.request, body=urlencode([(key, value if key == name else old) for key, old in given]).encode())

    for name in sorted(signed):
        value = dict(given)[name]
        for at in sorted({0, len(value) // 3, len(value) // 2, len(value) - 1}):
            changed = value[:at] + _other(value[at]) + value[at + 1 :]
            yield it.mutant(f"{name}, another character at {at}", request=with_field(name, changed))
        yield it.mutant(f"{name}, two newlines more", request=with_field(name, value + "\n\n"))
        yield it.mutant(f"{name}, cut", request=with_field(name, value[: len(value) // 2]))
        yield it.mutant(f"{name}, empty", request=with_field(name, ""))
        yield it.mutant(f"{name}, twice", request=with_field(name, value + value))
        before = urlencode({name: "other"}).encode()
        yield it.mutant(f"{name}, another one before it", request=_with(it.request, body=before + b"&" + it.request.body))


def _place(it: Good) -> str:
    """The place of the signature that this vector uses."""
    data = it.request.document() if any("{/" in place for place in it.check.check.signature) else None
    scope = Scope(it.request, source_of(it.provider, it.vector).options, data=MISSING if data is None else data)
    if it.check.each:
        scope = scope.over(_first_item(it))
    return next(place for place in it.check.check.signature if Template(place).text(scope))


def _first_item(it: Good):
    from payload.pointer import every

    return next(item for _, item in every(it.request.document(), it.check.each))


def _signature(it: Good) -> tuple[str, Callable[[str | None], Request]]:
    """The signature's text, and a maker of the request with another one (None: without)."""
    place = _place(it)
    kind, _, argument = place[1:-1].partition("|")[0].partition(":")
    options = source_of(it.provider, it.vector).options
    if argument.startswith("$"):
        argument = str(options[argument[1:]])
    if kind == "header":
        others = [(name, value) for name, value in it.request.fields if name.lower() != argument.lower()]
        text = it.request.headers[argument.lower()]
        return text, lambda new: _with(it.request, headers=others if new is None else [*others, (argument, new)])
    if kind == "query":
        split = urlsplit(it.request.url)
        pairs = parse_qsl(split.query, keep_blank_values=True)
        rest = [(name, value) for name, value in pairs if name != argument]

        def in_query(new: str | None) -> Request:
            now = rest if new is None else [*rest, (argument, new)]
            return _with(it.request, url=urlunsplit(split._replace(query=urlencode(now, errors="surrogatepass"))))

        return dict(pairs)[argument], in_query
    if kind in {"form", "param"} and it.request.form():
        fields = it.request.form()
        left = [(name, value) for name, value in fields if name != argument]

        def in_form(new: str | None) -> Request:
            now = left if new is None else [*left, (argument, new)]
            return _with(it.request, body=urlencode(now, errors="surrogatepass").encode())

        return dict(fields)[argument], in_form
    if place == "{jmes:@}":
        return _in_list(it)
    pointer = place[1:-1].partition("|")[0] if kind.startswith("/") else f"/{argument}"

    def in_body(new: str | None) -> Request:
        text = "" if new is None else new.encode("utf-8", "replace").decode()
        if it.request.form():
            plain = urlencoded(it.request)
            return _with(plain, body=with_value(plain, plain.body, pointer, text))
        document = orjson.loads(it.request.body)
        item = document
        if it.check.each:
            from payload.pointer import every

            item = next(item for _, item in every(document, it.check.each))
        put(item, pointer, text)
        return _with(it.request, body=orjson.dumps(document))

    item = _first_item(it) if it.check.each else it.request.document()
    return str(reach(item, steps_of(pointer))), in_body


def _in_list(it: Good) -> tuple[str, Callable[[str | None], Request]]:
    """For a token that is itself an item of a list."""
    from payload.pointer import every

    steps, text = next(every(it.request.document(), it.check.each))

    def remade(new: str | None) -> Request:
        document = orjson.loads(it.request.body)
        listed = reach(document, steps[:-1])
        listed[int(steps[-1])] = "" if new is None else new.encode("utf-8", "replace").decode()
        return _with(it.request, body=orjson.dumps(document))

    return text, remade


def _signatures(it: Good) -> Iterator[Mutant]:
    text, remade = _signature(it)
    yield it.mutant("signature, dropped", request=remade(None))
    check = it.check.check
    core = _core(it, text)
    where = text.rindex(core)
    before, after = text[:where], text[where + len(core) :]

    def changed(name: str, new: str) -> Iterator[Mutant]:
        if new != core:
            yield it.mutant(f"signature, {name}", request=remade(before + new + after))

    yield from changed("empty", "")
    yield from changed("blank", " ")
    for at in sorted({0, 1, len(core) // 4, len(core) // 2, len(core) - 5, len(core) - 3}):
        if 0 <= at < len(core):
            yield from changed(f"another character at {at}", core[:at] + _other(core[at]) + core[at + 1 :])
    yield from changed("one less", core[:-1])
    yield from changed("half", core[: len(core) // 2])
    yield from changed("one more", core + "0")
    yield from changed("one more before", "0" + core)
    yield from changed("twice", core + core)
    yield from changed("reversed", core[::-1] + "0")
    yield from changed("non-ASCII", core[:-1] + "é")
    yield from changed("non-ASCII at length", "é" * len(core))
    yield from changed("NUL", core + "\0")
    yield from changed("all zeros", "0" * len(core))
    if check.scheme != "shared_secret" and check.encoding != "hex_any_case":
        yield from changed("upper case", core.upper())
    if check.scheme in {"mac", "public_key"} and check.encoding == "base64":
        yield from changed("other alphabet", core.replace("+", "-").replace("/", "_"))
        yield from changed("without padding", core.rstrip("="))
        yield from changed("more padding", core + "=")
        yield from changed("lower case", core.lower())
    yield from changed("in hex of itself", core.encode().hex())
    yield from changed("in base64 of itself", b64encode(core.encode()).decode())
    yield from changed("quoted", f'"{core}"')
    yield from changed("with a space that takes no room", f"{core[:1]}\u200b{core[1:]}")
    yield from changed("null", "null")
    yield from changed("true", "true")
    if check.scheme == "identity_token":
        yield from _tokens(it, core, changed)
    if before:
        yield it.mutant(
            "signature, without what stands before it", request=remade(core if not check.prefix_optional else "x" + core)
        )
        yield it.mutant("signature, only what stands before it", request=remade(before))
        yield it.mutant(
            "signature, another algorithm's name",
            request=remade(
                before.replace("sha256", "sha1").replace("v1", "v9").replace("v0", "v9") + _other(core[0]) + core[1:]
            ),
        )
    flooded = (check.separator or ",").join([before + "0" * len(core)] * 5000)
    yield it.mutant("signature, five thousand of them", request=remade(flooded[:60000]))
    if not check.repeated and _place(it).startswith("{header:"):
        doubled = remade(text)
        name = doubled.fields[-1][0]
        yield it.mutant("signature, twice the header", request=_with(doubled, headers=[*doubled.fields, (name, text)]))
        yield it.mutant("signature, a bad one first", request=_with(doubled, headers=[(name, "bad"), *doubled.fields]))
        yield it.mutant("signature, a bad one behind", request=_with(doubled, headers=[*doubled.fields, (name, "bad")]))


def _core(it: Good, text: str) -> str:
    """The signature itself, without prefix and companions."""
    prefix = Template(it.check.check.prefix).text(Scope(it.request, source_of(it.provider, it.vector).options)) or ""
    separator = it.check.check.separator
    if separator:
        entries = [entry.strip() for entry in text.split(separator)]
        # The longest: what is shorter is a time, or a dummy in a vector of several signatures.
        text = max((entry for entry in entries if entry.startswith(prefix)), key=len)
    return text.removeprefix(prefix)


def _other(char: str) -> str:
    return "1" if char == "0" else "0" if char.isdigit() else "b" if char == "a" else "a"


def _tokens(it: Good, core: str, changed: Callable[[str, str], Iterator[Mutant]]) -> Iterator[Mutant]:
    from base64 import urlsafe_b64decode, urlsafe_b64encode

    head, claims, code = core.split(".")

    def packed(value: object) -> str:
        return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()

    header = orjson.loads(urlsafe_b64decode(head + "=="))
    said = orjson.loads(urlsafe_b64decode(claims + "=="))
    for algorithm in ("none", "None", "HS256", "HS512", "RS256", "ES256"):
        if algorithm != header["alg"]:
            yield from changed(f"algorithm {algorithm}", f"{packed({**header, 'alg': algorithm})}.{claims}.{code}")
    yield from changed("unsigned", f"{packed({'alg': 'none'})}.{claims}.")
    yield from changed("without its code", f"{head}.{claims}.")
    for name in said:
        yield from changed(f"another {name}", f"{head}.{packed({**said, name: 'other'})}.{code}")
    yield from changed("two parts", f"{head}.{claims}")
    yield from changed("four parts", f"{core}.{code}")


def _times(it: Good) -> Iterator[Mutant]:
    stamp = it.check.check.time
    if stamp is None:
        return
    options = source_of(it.provider, it.vector).options
    tolerance_s = options.get("tolerance_s") or stamp.tolerance_s
    spec = spec_of(it.provider, it.vector)
    if not tolerance_s:  # then the source may ask for one
        tolerance_s = 300
        spec = spec.model_copy(update={"options": {**spec.options, "tolerance_s": 300}})
    at_s = _signed_s(it)
    for name, late_s in [("stale by a second", tolerance_s + 1), ("stale by a year", 31_536_000)]:
        yield it.mutant(name, spec=spec, now_s=at_s + late_s)
        yield it.mutant(name.replace("stale", "future"), spec=spec, now_s=at_s - late_s)
    if stamp.value.startswith("{header:") and "$" not in stamp.value:
        header = stamp.value[8:-1]
        others = [(name, value) for name, value in it.request.fields if name.lower() != header.lower()]
        text = it.request.headers[header.lower()]
        yield it.mutant("time, dropped", request=_with(it.request, headers=others))
        moved = text[:-1] + _other(text[-1]) if text[-1].isdigit() else text.replace("0", "1", 1)
        for name, new in [
            ("empty", ""),
            ("garbage", "yesterday"),
            ("negative", f"-{text}"),
            ("moved", moved),
            ("padded", f"0{text}"),
        ]:
            yield it.mutant(f"time, {name}", request=_with(it.request, headers=[*others, (header, new)]))
        yield it.mutant("time, twice", request=_with(it.request, headers=[*it.request.fields, (header, text)]))


def _signed_s(it: Good) -> float:
    from ingest.verify import verify

    proof, _ = verify(it.request, source_of(it.provider, it.vector), round(it.vector.now * 1000))
    return proof.signed_ms / 1000


def _credentials(it: Good) -> Iterator[Mutant]:
    spec = spec_of(it.provider, it.vector)
    if it.check.check.key == "fixed":
        return

    def with_secrets(*secrets: str) -> SourceSpec:
        return spec.model_copy(update={"secrets": tuple(SecretStr(secret) for secret in secrets)})

    if it.check.scheme.needs() == "secrets":
        first = it.vector.secrets[0]
        for blank in ("", " ", "\t\n"):
            yield it.mutant(f"secret, blank {blank!r}", spec=with_secrets(blank))
        yield it.mutant("secret, none", spec=with_secrets())
        yield it.mutant("secret, another", spec=with_secrets(_another(it, first)))
        yield it.mutant("secret, several others", spec=with_secrets(_another(it, first), _another(it, first[::-1])))
    elif it.check.scheme.needs() == "public_keys":
        yield it.mutant("public key, none", spec=spec.model_copy(update={"public_keys": ()}))
        yield it.mutant("public key, blank", spec=spec.model_copy(update={"public_keys": (" ",)}))
        yield it.mutant("public key, another", spec=spec.model_copy(update={"public_keys": ("00" * 31 + "01",)}))
        yield it.mutant("public key, garbage", spec=spec.model_copy(update={"public_keys": ("garbage",)}))
    elif it.check.scheme.needs() == "password":
        for password in ("", " ", None):
            yield it.mutant(
                f"password, {password!r}",
                spec=spec.model_copy(update={"password": SecretStr(password) if password is not None else None}),
            )
        yield it.mutant("password, another", spec=spec.model_copy(update={"password": SecretStr("other")}))
        yield it.mutant("user, another", spec=spec.model_copy(update={"username": "other"}))


def _another(it: Good, secret: str) -> str:
    """Another secret in the same form."""
    if it.check.check.key == "hex":
        return "00" * 32 if secret != "00" * 32 else "01" * 32
    if it.check.check.key in {"base64", "whsec", "whsec_or_text"}:
        return "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC1vdGhlcg=="
    return f"other-{secret[:3]}"


def _signed_headers(it: Good) -> Iterator[Mutant]:
    names = {name for text in it.check.check.signed if not text.startswith("$") for name in Template(text).headers}
    stamp = it.check.check.time.value if it.check.check.time else ""
    for name in sorted(names):
        if name.lower() in stamp.lower() or name.lower() not in it.request.headers:
            continue
        others = [(key, value) for key, value in it.request.fields if key.lower() != name.lower()]
        text = it.request.headers[name.lower()]
        yield it.mutant(f"{name}, dropped", request=_with(it.request, headers=others))
        yield it.mutant(f"{name}, changed", request=_with(it.request, headers=[*others, (name, text + "0")]))


def _addresses(it: Good) -> Iterator[Mutant]:
    if any("{url" in text for text in it.check.check.signed):
        yield it.mutant("url, another path", request=_with(it.request, url=it.request.url.replace("://", "://x.", 1)))
        joined = "&" if "?" in it.request.url else "?"
        yield it.mutant("url, one parameter more", request=_with(it.request, url=f"{it.request.url}{joined}zz=1"))
