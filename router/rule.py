"""A subscription's rule: whichever language it is written in, one compiled pattern with its guards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jmespath
import jmespath.exceptions

from router.cesql import compile_cesql
from router.filters import compile_filters
from router.guard import compile_when
from router.pattern import Document, Pattern, compile_pattern
from schemas.config import SubscriptionSpec
from schemas.errors import Invalid


def compile_rule(spec: SubscriptionSpec) -> Pattern:
    """The rule of a subscription: its pattern, filters or CESQL, and its `when`.  Raises `Invalid`, as each of them does."""
    if spec.cesql:
        pattern = compile_cesql(spec.cesql)
    elif spec.filters:
        pattern = compile_filters(spec.filters)
    else:
        pattern = compile_pattern(spec.pattern, extensions=frozenset(spec.extensions))
    if spec.when is None:
        return pattern
    return replace(pattern, guards=(*pattern.guards, compile_when(spec.when)))


def compile_key(expression: str, *, field: str = "dedup.key") -> Callable[[Document], str | None]:
    """What gives an event's key by a JMESPath expression: canonical JSON, or None where the expression finds nothing.

    Raises `Invalid`, which names `field`, where the expression is wrong.  An event without a dedup key is a duplicate of none.
    """
    try:
        compiled = jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as exc:
        raise Invalid(f"{field}: {' '.join(str(exc).split())}; in {expression!r}") from exc

    def key_of(document: Document) -> str | None:
        try:
            found: Any = compiled.search(document)
        except jmespath.exceptions.JMESPathError:  # a function met a type it does not take: no key
            return None
        return None if found is None else json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    return key_of
