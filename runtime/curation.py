"""The curator as this process uses it: over the store's history and facts, with lookups that go out by the guarded client."""

from __future__ import annotations

from collections.abc import Mapping

from curator.lookups import Lookups
from curator.ports import NOTHING_LEARNT, KnownFact, Learnt, PastEvent, Reply
from curator.service import Curation
from egress.client import Client
from runtime.clock import now_ms
from store.calibrations import calibration_of
from store.credentials import Credentials
from store.engine import Engine
from store.facts import Facts
from store.history import Histories
from store.vault import Vault

FENCE_PURPOSE = "context fence"


def curation_of(engine: Engine, vault: Vault, client: Client | None, *, counts: bool = True) -> Curation:
    """The curator over an open store.  Without a client no lookup is made: a context says that they are missing.

    The fence's secret comes from the master key, so every process of an installation writes the same marks.
    """
    lookups = Lookups(_Way(client), Credentials(engine, vault), now_ms) if client else None
    return Curation(
        fence_secret=vault.derived(FENCE_PURPOSE)[0],
        histories=_Past(Histories(engine)),
        facts=_Known(Facts(engine)),
        calibrations=_Taught(engine),
        lookups=lookups,
        counts=counts,
    )


class _Past:
    """The store's history, in the curator's words."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    async def last(self, *, team: str, thing: str, before_ms: int, after_ms: int, limit: int) -> list[PastEvent]:
        rows = await self._histories.last(team=team, thing=thing, before_ms=before_ms, after_ms=after_ms, limit=limit)
        return [PastEvent(row.event_id, row.type, row.at_ms, row.actor, row.summary, row.outcome) for row in rows]


class _Known:
    """The store's facts, in the curator's words."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def about(self, *, team: str, thing: str, at_ms: int) -> list[KnownFact]:
        rows = await self._facts.about(team=team, thing=thing, at_ms=at_ms)
        return [
            KnownFact(row.name, row.value, row.by, row.at_ms, row.version, pinned=row.pinned, expires_ms=row.expires_ms)
            for row in rows
        ]


class _Taught:
    """What agents taught about tokens, in the curator's words."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def of(self, *, team: str, family: str) -> Learnt:
        version, permille = await calibration_of(self._engine, team, family)
        return Learnt(permille / 1000 if permille else None, version) if version else NOTHING_LEARNT


class _Way:
    """The guarded client, as lookups call it: what may call private addresses may call them over http."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        allow_private: bool,
        max_answer_bytes: int,
    ) -> Reply:
        return await self._client.request(
            method,
            url,
            headers=headers,
            timeout_s=timeout_s,
            allow_private=allow_private,
            allow_http=allow_private,
            max_answer_bytes=max_answer_bytes,
        )
