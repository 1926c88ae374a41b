"""The form of a provider file: what TOML says, before it is compiled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.config import NAME_PATTERN, Span

Url = Annotated[str, Field(pattern=r"^https?://")]
Ref = Annotated[str, Field(description="a template: text with references in braces, as in {header:X-Event}.{/action}")]


class Form(BaseModel):
    """Base: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(Form):
    """One thing that must hold of a request: a reference, and exactly one test of its text."""

    value: Ref
    equals: str | None = None
    one_of: tuple[str, ...] | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    matches: str | None = Field(default=None, description="a regular expression that matches the whole text")
    present: bool | None = Field(default=None, description="true: the reference is there (and not null); false: it is not")


Conditions = tuple[Condition, ...]


class Choice(Form):
    """One alternative: a template, and where it applies."""

    value: Ref
    types: tuple[str, ...] = Field(default=(), description="globs over the event's type without its family; none: every type")
    when: Conditions = ()
    unit: Literal["auto", "s", "ms", "us", "ns", "iso", "rfc2822", "snowflake"] = "auto"


def _as_choices(value: Any) -> Any:
    listed = value if isinstance(value, list | tuple) else [value]
    return [{"value": one} if isinstance(one, str) else one for one in listed]


Choices = Annotated[
    tuple[Choice, ...],
    BeforeValidator(_as_choices, json_schema_input_type=str | Choice | list[str | Choice]),
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Refs = Annotated[tuple[Ref, ...], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class Option(Form):
    """A setting of a source that this provider knows, by name."""

    type: Literal["text", "integer", "number", "boolean", "list"] = "text"
    help: str
    required: bool = False
    default: str | int | float | bool | list[str] | None = None
    one_of: tuple[str, ...] = ()


class Requirement(Form):
    """An equality that must hold besides the signature; where `equals` is a list option, with one of its entries."""

    value: Ref
    equals: Ref
    when: Conditions = ()
    case: Literal["exact", "fold"] = "exact"


class Stamp(Form):
    """The signed time."""

    value: Ref
    unit: Literal["s", "ms", "iso"] = "s"
    tolerance_s: float | None = Field(
        default=None, gt=0, description="absent: no age check unless the option tolerance_s is set"
    )


class KeySource(Form):
    """Where a public key comes from if the source has none configured: an address named by the request or fixed here."""

    url: Ref
    hosts: tuple[str, ...] = Field(description="exact host names, or .suffixes, that may be fetched from, over https, port 443")
    path: str = Field(default="", description="a regular expression that matches the whole path")
    form: Literal["certificate", "pem", "jwks"] = "certificate"
    common_name: str = Field(default="", description="a suffix that the certificate's common name must have")
    post: dict[str, Ref] = Field(
        default_factory=dict,
        description="JSON that is posted there instead of a GET, {secret} being the source's newest secret; "
        "what stands behind a # in url then tells the keys apart, and is not sent",
    )


class Check(Form):
    """How a request proves that the vendor sent it.  Of several, the first whose `when` holds decides alone."""

    scheme: str = Field(description="mac, public_key, identity_token, shared_secret, or the name of a special scheme")
    when: Conditions = ()
    each: str = Field(default="", description="a pointer with * to the items that are signed one by one; all must prove")
    signature: Refs = Field(default=(), description="where the signature or token stands; several: any of them may prove")
    repeated: bool = Field(default=False, description="the signature's header may come several times")
    separator: str = Field(default="", description="what separates the entries of a list of signatures or of named fields")
    prefix: Ref = Field(
        default="", description="what stands before a signature; with a separator, entries without it are passed over"
    )
    prefix_optional: bool = False
    encoding: str = Field(default="hex", description="hex, hex_any_case, base64, base64url, or $option")
    algorithm: str = Field(default="", description="fixed here or by $option, never taken from the request")
    construction: Literal["hmac", "hash"] = "hmac"
    signed: Refs = Field(default=(), description="what is signed; several: any of them may be what the vendor signed")
    key: Literal["text", "hex", "base64", "whsec", "whsec_or_text", "unescaped_html", "sha1_of_text", "fixed"] = "text"
    fixed_key: str = ""
    time: Stamp | None = None
    require: tuple[Requirement, ...] = ()
    keys: tuple[str, ...] = Field(default=(), description="public keys that the vendor publishes, fixed here")
    keys_from: KeySource | None = None
    credentials: Literal["secret", "basic"] = "secret"
    issuers: Refs = ()
    audience: Refs = Field(default=(), description="one of these must be the token's audience; absent: not checked")
    leeway_s: float = 0.0
    max_age_s: float | None = Field(default=None, description="how old the token's iat may be")
    expires: bool = Field(default=False, description="the token must carry exp (one that is there is always checked)")
    compose: Ref = Field(default="", description="for signing: the header's text, from {signature} and {timestamp}")
    settings: dict[str, Any] = Field(default_factory=dict, description="for special schemes")


class Handshake(Form):
    """A request that is answered instead of taken as an event."""

    name: str
    methods: tuple[str, ...] = ("POST",)
    signed: bool = Field(default=True, description="true: answered only after the check")
    when: Conditions = ()
    require: tuple[Requirement, ...] = Field(default=(), description="must hold, else the answer is `refusal`")
    refusal: int = 403
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: Ref = ""
    fields: dict[str, Any] | None = Field(default=None, description="a JSON answer; its strings are templates")
    headers: dict[str, Ref] = Field(default_factory=dict)
    keep_secret: Ref = Field(
        default="", description="the secret that this request brings: kept only while the source is in set-up"
    )
    fetch: Ref = Field(default="", description="an address that is called to confirm")
    fetch_hosts: tuple[str, ...] = ()


class Answer(Form):
    """What the vendor wants to hear when a delivery was taken; the default is 202 without a body."""

    status: int = Field(default=202, ge=200, le=299)
    content_type: str = "text/plain; charset=utf-8"
    body: str = ""


class Reading(Form):
    """How a delivery is read."""

    methods: tuple[str, ...] = ("POST",)
    form_json: str = Field(default="", description="the form field that holds the JSON document, where the body is a form")
    content_types: tuple[str, ...] = ("application/json",)
    answer: Answer = Answer()


class Shape(Form):
    """A check of an unsigned type header against the body: for these types the pointer must lead somewhere."""

    types: tuple[str, ...]
    present: str


class EventForm(Form):
    """What a delivery says, in our words.  Every field is a list of alternatives; the first that gives text is taken."""

    batch: Refs = Field(
        default=(), description="pointers with * to items, the innermost counting; none found: the whole body is one event"
    )
    batch_when: Conditions = Field(
        default=(), description="when a request is a batch at all; without: whenever the pointer leads on"
    )
    type: Choices
    kind: Choices = Field(
        default=(), description="the canonical kind where the type alone does not tell it; otherwise [kinds] says it"
    )
    shape: tuple[Shape, ...] = ()
    delivery: Choices = ()
    time: Choices = ()
    subject: Choices = ()
    key: Choices = Field(default=(), description="the ordering key: the vendor's stable id of the thing")
    actor: Choices = ()
    url: Choices = ()
    summary: Choices = ()
    version: Choices = Field(default=(), description="a number or time that grows with each change of the subject")
    skip: Conditions = Field(default=(), description="items for which any of these holds are no events")


class Identity(Form):
    """What makes a redelivery the same event; only what the signature covers may be named."""

    kind: Literal["delivery", "timestamp+body", "body"]
    delivery: Choices = Field(
        default=(), description="for kind delivery: the signed id; where it is missing, the next kind is used"
    )
    window: Span | None = Field(
        default=None, description="for kind body: how long an equal body is the same event; absent: 35 days"
    )


class Retries(Form):
    """How the vendor delivers."""

    automatic: bool | None = None
    schedule: str = ""
    success: str = "2xx"
    deadline_s: float | None = None
    pull_recovery: str = Field(default="", description="the call that lists what was missed; empty: none")


class Ordering(Form):
    """What the vendor promises about order."""

    guaranteed: bool = False
    hint: str = ""


class Setup(Form):
    """The steps on the vendor's side, for people; {url} is the address to paste."""

    steps: tuple[str, ...]
    secret: str = Field(default="", description="which secret to copy, and from where")


class Sending(Form):
    """What `nightbell send` adds so that a bare body looks like a delivery."""

    headers: dict[str, Choices] = Field(default_factory=dict)


class Oracle(Form):
    """An independent implementation that the recipe was checked against."""

    registry: Literal["pypi", "npm", "http"]
    package: str
    version: str = ""
    note: str = ""


class Expect(Form):
    """What a vector must give.  `events` counts; the other fields are those of the first event."""

    events: int = 1
    type: str | None = None
    kind: str | None = None
    subject: str | None = None
    key: str | None = Field(default=None, description="the ordering key without team and source")
    actor: str | None = None
    deliveryid: str | None = None
    time: str | None = None
    url: str | None = None
    summary: str | None = None
    version: str | None = None
    status: int | None = Field(default=None, description="of the answer to a handshake")
    reply: str | None = Field(default=None, description="the body of the answer to a handshake")
    content_type: str | None = Field(default=None, description="of the answer to a handshake")
    headers: dict[str, str] | None = Field(default=None, description="of the answer to a handshake, all of them")
    keeps: str | None = Field(default=None, description="the secret that the handshake brings and the source keeps")
    calls: str | None = Field(default=None, description="the address that is called to confirm")
    refused: str | None = Field(default=None, description="the step that refuses, for a vector that must not pass")


class Sample(Form):
    """A request with what it must become."""

    name: str = ""
    method: str = "POST"
    url: str = "https://hooks.example.com/in/source"
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    body_base64: str | None = None
    form: dict[str, str] | None = None
    expect: Expect = Expect()


class Vector(Sample):
    """A signed request."""

    origin: Literal["official", "generated", "constructed"]
    source: str = ""
    secrets: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    now: float = Field(default=1_750_000_000, description="unix seconds at which it is checked")
    fetched: dict[str, str] = Field(default_factory=dict, description="what the addresses of keys_from would give")


class ProviderFile(Form):
    """One provider: how a vendor signs, challenges and shapes its webhooks."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    family: Annotated[str, Field(pattern=NAME_PATTERN)]
    title: str
    confirmed: bool
    reason: str = Field(default="", description="where not confirmed: what is, what is not, and why")
    docs: dict[str, Url | tuple[Url, ...]] = Field(
        description="the page behind each fact: signature, handshake, events, retries, …"
    )
    notes: tuple[str, ...] = ()
    setup: Setup
    options: dict[str, Option] = Field(default_factory=dict)
    request: Reading = Reading()
    verify: tuple[Check, ...] = Field(min_length=1)
    handshake: tuple[Handshake, ...] = ()
    event: EventForm
    kinds: dict[str, str] = Field(
        default_factory=dict, description="type without family, * at its end allowed, to canonical kind"
    )
    identity: Identity
    retries: Retries = Retries()
    ordering: Ordering = Ordering()
    send: Sending = Sending()
    oracle: tuple[Oracle, ...] = ()
    vector: tuple[Vector, ...] = ()
    example: tuple[Sample, ...] = Field(default=(), description="unsigned requests, for normalisation alone")
