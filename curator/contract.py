"""A subscription's context contract, made ready once: what is required, in which counter, with which templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curator.budget import Path
from curator.curate import DEFAULT_MAX_TOKENS, selected, written
from curator.enrich import check_lookup
from curator.ports import NOTHING_LEARNT, Learnt, TokenCounter
from curator.tokens import counter_for
from curator.view import check_view
from payload.hidden import without_hidden
from schemas.config import ContextSpec
from schemas.errors import Invalid
from schemas.event import Event

LEAST_TOKENS = 32  # below this no envelope, mark or manifest has room


@dataclass(frozen=True, slots=True)
class Contract:
    """What `compose` works from.  `members`, `facts` and `lookups` are what `required` names, apart."""

    spec: ContextSpec
    counter: TokenCounter
    limit: int
    members: frozenset[Path]
    facts: frozenset[str]
    lookups: frozenset[str]
    asked: frozenset[Path] = frozenset()  # `members`, and as they were written: a name in a body may hold hidden characters
    calibration: int = 0  # the version of what was learnt about the model's tokens; 0: nothing


def contract_of(spec: ContextSpec, learnt: Learnt = NOTHING_LEARNT) -> Contract:
    """The contract of a spec.  Raises Invalid, quoting the place, where it could never be kept."""
    check_contract(spec)
    required = spec.required
    as_written = frozenset(_path(name) for name in required if not name.startswith(("facts.", "enrich.")))
    members = frozenset(_cleaned(path) for path in as_written)
    return Contract(
        spec=spec,
        counter=counter_for(spec.model, factor=learnt.factor),
        limit=DEFAULT_MAX_TOKENS if spec.max_tokens is None else spec.max_tokens,
        members=members,
        asked=members | as_written,
        facts=frozenset(name.removeprefix("facts.") for name in required if name.startswith("facts.")),
        lookups=frozenset(name.removeprefix("enrich.") for name in required if name.startswith("enrich.")),
        calibration=learnt.version,
    )


def check_contract(spec: ContextSpec, *, envelope_tokens: int = 0) -> None:
    """Raise Invalid where a view is wrong, a budget impossible, or what is required is never asked for.

    `envelope_tokens` is what a protocol sends beside any context, at the least: the budget has room for it too.
    """
    if spec.view is not None:
        check_view(spec.view)
    least = LEAST_TOKENS + envelope_tokens
    if spec.max_tokens is not None and spec.max_tokens < least:
        raise Invalid(f"context.max_tokens: {spec.max_tokens} tokens hold no context; the least is {least}")
    for name, lookup in spec.enrich.items():
        check_lookup(name, lookup)
    for name in spec.required:
        _check_required(name, spec)
    if spec.template is not None:
        if spec.format != "text":
            raise Invalid("context.template: a template needs `format: text`")
        from curator.template import check_template

        check_template(spec.template)


def _check_required(name: str, spec: ContextSpec) -> None:
    if name.startswith("enrich.") and name.removeprefix("enrich.") not in spec.enrich:
        raise Invalid(f"context.required: {name!r} names a lookup that context.enrich does not have")
    is_asked = "*" in spec.facts or name.removeprefix("facts.") in spec.facts
    if name.startswith("facts.") and not is_asked:
        raise Invalid(f"context.required: {name!r} names a fact that context.facts does not ask for")
    if not name or not all(name.split(".")):
        raise Invalid(f"context.required: {name!r} is no name such as title, customer.id, facts.tier or enrich.crm")


def _path(name: str) -> Path:
    return tuple(int(step) if step.isdigit() else step for step in name.split("."))


def uncut(event: Event, data: Any, spec: ContextSpec) -> Any:
    """What a contract's view takes of an event, cleaned, before any budget: what the pointers of a manifest point into."""
    value, notes = selected(event, data, spec.view, contract_of(spec).asked)
    return written(value, data, notes)[1]


def _cleaned(path: Path) -> Path:
    """A path as it stands in a context."""
    return tuple(without_hidden(step)[0] if isinstance(step, str) else step for step in path)
