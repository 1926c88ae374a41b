"""What must be done now and then to what operators configured: ended secrets, emptied queues, another master key."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select, update

from schemas.errors import BadSetting, SecretsUnavailable
from store import agents as agent_store
from store import credentials
from store import sources as source_store
from store.agents import all_agent_rows, mend_agent
from store.audit import Act, audited
from store.engine import Call, Change, Engine, Put, Script
from store.prepared import Bulk, Prepared
from store.sources import all_source_rows, mend_source
from store.subscriptions import drop_drained
from store.tables import ROSTER, meta
from store.vault import Vault
from store.versions import raised

DRAIN_MS = 60_000  # a router that has not seen the deletion yet still plans for the subscription: its row waits so long
_CANARY, _CANARY_TEXT = "vault_canary", b"nightbell"
_READ = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")), "key_")
_KEEP_FIRST = Bulk(meta, "key", "value", then="ON CONFLICT DO NOTHING")
_RESEAL = Prepared(update(meta).where(meta.c.key == bindparam("key_")).values(value=bindparam("value_")), "value_", "key_")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: secrets whose overlap ended, subscriptions whose queue had emptied."""

    ended_secrets: int
    drained_subscriptions: int


async def sweep(engine: Engine, vault: Vault, *, now_ms: int) -> Swept:
    """End rotated secrets whose overlap is over, and drop deleted subscriptions whose queues are empty."""
    return await engine.write(lambda: _swept(vault, now_ms))


def _swept(vault: Vault, now_ms: int) -> Script[Swept]:
    ended = 0
    for row in (yield from all_agent_rows()):
        try:
            secrets = agent_store.unsealed_secrets(vault, row)
        except SecretsUnavailable:
            continue  # shown by `check`; nothing of it can end
        live = tuple(secret for secret in secrets.signing if not secret.until_ms or secret.until_ms > now_ms)
        if len(live) < len(secrets.signing):
            ended += len(secrets.signing) - len(live)
            sealed = agent_store.sealed_secrets(vault, row.uid, replace(secrets, signing=live))
            yield from mend_agent(replace(row, sealed=sealed))
    drained = yield from drop_drained(now_ms - DRAIN_MS)
    if ended or drained:
        yield from raised(ROSTER)
    return Swept(ended, len(drained))


async def prove_master_key(engine: Engine, vault: Vault) -> None:
    """See that the master key is the one that this store's secrets were sealed under.

    The first time, a canary is sealed and kept.  Raises `BadSetting` where it does not open.
    """
    await engine.write(lambda: _proven(vault))


def _proven(vault: Vault) -> Script[None]:
    kept = yield Call(_READ, (_CANARY,))
    if not kept:
        yield Put(_KEEP_FIRST, [(_CANARY, _canary(vault))])
        kept = yield Call(_READ, (_CANARY,))  # another process may have been first: then its canary must open
    try:
        vault.unseal(base64.b64decode(kept[0][0]), context=_CANARY)
    except SecretsUnavailable as exc:
        raise BadSetting("NIGHTBELL_MASTER_KEY is not the key that this store's secrets were sealed under") from exc


def _canary(vault: Vault) -> str:
    return base64.b64encode(vault.seal(_CANARY_TEXT, context=_CANARY)).decode()


async def reseal(engine: Engine, vault: Vault, *, team: str, actor: str, now_ms: int) -> int:
    """Seal anew, under the present master key, what an older one sealed; gives how many.  Raises `SecretsUnavailable`."""
    return await engine.write(lambda: _resealed(vault, team, actor, now_ms))


def _resealed(vault: Vault, team: str, actor: str, now_ms: int) -> Script[int]:
    count = 0
    for source in (yield from all_source_rows()):
        if not vault.is_current(source.sealed):
            secrets = source_store.unsealed_secrets(vault, source)
            yield from mend_source(replace(source, sealed=source_store.sealed_secrets(vault, source.uid, secrets)))
            count += 1
    for agent in (yield from all_agent_rows()):
        if not vault.is_current(agent.sealed):
            signing = agent_store.unsealed_secrets(vault, agent)
            yield from mend_agent(replace(agent, sealed=agent_store.sealed_secrets(vault, agent.uid, signing)))
            count += 1
    count += yield from credentials.resealed(vault)
    yield Change(_RESEAL, (_canary(vault), _CANARY))
    if count:
        yield from audited(Act(team, actor, "secrets.reseal", f"{count} objects", vault.key_id), at_ms=now_ms)
    return count
