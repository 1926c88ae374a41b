"""What the API gives about contexts."""

from __future__ import annotations

from typing import Any

from control.answers import Answer, Listed


class Fact(Answer):
    """One version of a fact: who said it, when, in which run."""

    thing: str
    name: str
    version: int
    value: Any
    by: str
    invocation: str
    at: str
    expires_at: str | None
    pinned: bool


class Facts(Listed):
    """Facts about a thing, or the versions of one, newest first."""

    items: list[Fact]


class Secret(Answer):
    """A named secret, never its value."""

    name: str
    updated_at: str


class Secrets(Listed):
    """Named secrets."""

    items: list[Secret]


class Dropped(Answer):
    """What is gone."""

    name: str


class ContextSums(Answer):
    """What a subscription's contexts came to, and a view that would have spared its agents what they fetched afterwards."""

    subscription: str
    contexts: int
    raw_tokens: int
    tokens: int
    saved_tokens: int
    missing: int
    cut: int
    fetched: dict[str, int]
    suggested_view: str | None


class Calibration(Answer):
    """How many tokens a model family makes of a text, against o200k; `version` rises when that changes."""

    family: str
    factor: float
    is_learnt: bool
    version: int
    samples: int
    updated_at: str


class Calibrations(Listed):
    """What agents' reports taught, by model family."""

    items: list[Calibration]


class ContextStats(Listed):
    """The contexts of each subscription."""

    items: list[ContextSums]
