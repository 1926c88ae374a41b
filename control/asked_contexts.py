"""What callers may ask and send about contexts: facts, secrets of lookups, parts of bodies, sums."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SecretStr

from control.asked import NO_NUL, Asked, Moment, Text
from schemas.config import Span

FactName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
Thing = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=NO_NUL, description="an ordering key, such as `default/gh/42`: `partitionkey`"),
]
Invocation = Annotated[Text, Field(description="one of the agent's own: the thing that its event is about")]


class FactQuery(Asked):
    """About which thing, named or by an invocation; with `name` the versions of that fact."""

    thing: Thing | None = None
    invocation: Invocation | None = None
    name: FactName | None = None


class FactBody(Asked):
    """A fact to write down.  `after` is the version that it must follow; `value` null takes the fact back."""

    thing: Thing | None = None
    invocation: Invocation | None = None
    name: FactName
    value: Any
    pinned: bool = Field(default=False, description="never cut from a context; for operators")
    expires_in: Span | None = Field(default=None, gt=0, le=10 * 365 * 86_400)
    after: int | None = Field(default=None, ge=0, description="0: only where there is none yet")


class SecretBody(Asked):
    """A secret for the headers of lookups."""

    value: SecretStr = Field(min_length=1, max_length=8192)


class BodyQuery(Asked):
    """Which part of the body; all of it, byte by byte, where left out."""

    pointer: Annotated[str, Field(max_length=512, pattern=r"^(/[^\x00]*)?$")] | None = Field(
        default=None, description="a JSON pointer, such as `/issue/body`: the part as JSON"
    )


class ContextStatsQuery(Asked):
    """Since when; a week where left out."""

    since: Moment | None = None
