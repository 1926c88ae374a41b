"""Sources, agents and subscriptions as the stages read them, on each engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from schemas.config import AgentSpec, SourceSpec, SubscriptionSpec, SubscriptionState
from schemas.errors import BadSetting, Conflict, Invalid
from schemas.ids import shard_of
from store.acts import enable_subscription, rotate_secret
from store.apply import Applier
from store.audit import verify_audit
from store.decide import AGENT, Wish
from store.engine import Engine
from store.redress import Redress
from store.roster import Roster
from store.sources import Sources
from store.subscriptions import mend_subscription, subscriptions_of
from store.tables import API, FILE
from store.upkeep import DRAIN_MS, prove_master_key, reseal, sweep
from store.vault import Vault

NOW = 1_800_000_000_000
DAY_MS = 86_400_000
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SECRET = "whsec_" + "Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LTAwMDE="


def wish(**fields: object) -> Wish:
    whole: dict[str, object] = {
        "team": "default",
        "managed_by": FILE,
        "sources": {"gh": SourceSpec(provider="github", secrets=("one", "two"), password="pw")},
        "agents": {"triage": AgentSpec(url="https://a.example.com", secret=SECRET, headers={"x-key": "canary"})},
        "subscriptions": {"bugs": SubscriptionSpec(agent="triage", pattern={"type": ["x"]})},
    }
    return Wish(**(whole | fields))


@pytest.fixture
def vault() -> Vault:
    return Vault([KEY])


@pytest.fixture
def applier(engine: Engine, vault: Vault) -> Applier:
    return Applier(engine, vault, Redress(engine))


async def applied(applier: Applier, asked: Wish, *, now_ms: int = NOW) -> list[str]:
    plan = await applier.apply(asked, actor="test", act="apply", now_ms=now_ms)
    return [change.action.value for change in plan.changes]


async def test_the_book_reads_sources_with_their_secrets(engine: Engine, vault: Vault, applier: Applier) -> None:
    await applied(applier, wish())

    (found,) = await Sources(engine, vault).sources()

    assert (found.team, found.name, found.uid[:4]) == ("default", "gh", "src_")
    assert [secret.get_secret_value() for secret in found.spec.secrets] == ["one", "two"]
    assert found.spec.password is not None
    assert found.spec.password.get_secret_value() == "pw"


async def test_the_dispatcher_reads_agents_with_secrets_headers_and_shard(
    engine: Engine, vault: Vault, applier: Applier
) -> None:
    await applied(applier, wish())

    (found,) = await Roster(engine, vault, now_ms=lambda: NOW).agents()

    assert found.secrets == (SECRET,)
    assert found.spec.headers == {"x-key": "canary"}
    assert found.shard == shard_of("default", "triage")


async def test_the_router_reads_subscriptions_in_todays_state(engine: Engine, vault: Vault, applier: Applier) -> None:
    await applied(applier, wish())
    row = (await subscriptions_of(engine, "default"))["bugs"]
    await engine.write(lambda: mend_subscription(replace(row, state="disabled", disabled_reason="410")))

    (found,) = await Roster(engine, vault, now_ms=lambda: NOW).subscriptions()

    assert (found.spec.state, found.generation, found.draining) == (SubscriptionState.DISABLED, 1, False)


async def test_versions_rise_with_a_change_and_only_then(engine: Engine, vault: Vault, applier: Applier) -> None:
    sources, roster = Sources(engine, vault), Roster(engine, vault, now_ms=lambda: NOW)
    seen = [(await sources.version(), await roster.version())]
    for asked in (
        wish(),
        wish(),
        wish(sources={"gh": SourceSpec(provider="github", secrets=("three",))}),
        wish(agents={"triage": AgentSpec(url="https://b.example.com")}),
    ):
        await applied(applier, asked)
        seen.append((await sources.version(), await roster.version()))

    begin = seen[0]
    assert [(one - begin[0], other - begin[1]) for one, other in seen] == [(0, 0), (1, 1), (1, 1), (2, 1), (3, 2)]


async def test_a_lost_master_key_leaves_a_source_without_secrets_and_the_rest_readable(
    engine: Engine, vault: Vault, applier: Applier
) -> None:
    await applied(applier, wish())
    lost = Vault([OTHER])

    (source,) = await Sources(engine, lost).sources()
    (agent,) = await Roster(engine, lost, now_ms=lambda: NOW).agents()

    assert (source.spec.secrets, source.spec.password, agent.secrets) == ((), None, ())


async def test_a_wrong_master_key_is_noticed_at_the_start(engine: Engine, vault: Vault) -> None:
    await prove_master_key(engine, vault)
    await prove_master_key(engine, vault)

    with pytest.raises(BadSetting, match="NIGHTBELL_MASTER_KEY"):
        await prove_master_key(engine, Vault([OTHER]))


async def test_resealing_lets_an_older_key_go(engine: Engine, vault: Vault, applier: Applier) -> None:
    await applied(applier, wish())
    await prove_master_key(engine, vault)

    count = await reseal(engine, Vault([OTHER, KEY]), team="default", actor="nora", now_ms=NOW)
    again = await reseal(engine, Vault([OTHER, KEY]), team="default", actor="nora", now_ms=NOW)

    await prove_master_key(engine, Vault([OTHER]))
    (source,) = await Sources(engine, Vault([OTHER])).sources()
    assert (count, again, len(source.spec.secrets)) == (2, 0, 2)


async def test_a_rotated_secret_ends_after_its_overlap(engine: Engine, vault: Vault, applier: Applier) -> None:
    await applied(applier, wish())
    rotated = await rotate_secret(engine, vault, team="default", agent="triage", actor="nora", now_ms=NOW)
    roster = Roster(engine, vault, now_ms=lambda: NOW)
    both = (await roster.agents())[0].secrets
    version = await roster.version()

    early = await sweep(engine, vault, now_ms=NOW + DAY_MS - 1)
    late = await sweep(engine, vault, now_ms=NOW + DAY_MS)

    assert both == (rotated.secret, SECRET)
    assert (early.ended_secrets, late.ended_secrets) == (0, 1)
    assert (await roster.agents())[0].secrets == (rotated.secret,)
    assert await roster.version() == version + 1


async def test_a_deleted_subscription_is_dropped_once_every_router_has_seen_it(
    engine: Engine, vault: Vault, applier: Applier
) -> None:
    await applied(applier, wish())
    await applied(applier, wish(subscriptions={}, prune=True))
    roster = Roster(engine, vault, now_ms=lambda: NOW)
    draining = [found.draining for found in await roster.subscriptions()]

    early = await sweep(engine, vault, now_ms=NOW + DRAIN_MS)
    late = await sweep(engine, vault, now_ms=NOW + DRAIN_MS + 1)

    assert draining == [True]
    assert (early.drained_subscriptions, late.drained_subscriptions) == (0, 1)
    assert await roster.subscriptions() == []


async def test_applies_at_once_make_each_object_once(engine: Engine, vault: Vault, applier: Applier) -> None:
    found = await asyncio.gather(*(applied(applier, wish()) for _ in range(5)), return_exceptions=True)

    assert [actions for actions in found if isinstance(actions, list) and "create" in actions] == [["create"] * 3]
    assert all(isinstance(each, list | Conflict) for each in found)
    assert len(await Sources(engine, vault).sources()) == 1


async def test_an_apply_that_is_refused_changes_nothing(engine: Engine, vault: Vault, applier: Applier) -> None:
    with pytest.raises(Invalid) as caught:
        await applied(applier, wish(subscriptions={"bugs": SubscriptionSpec(agent="nobody", pattern={})}))

    assert caught.value.fields["place"] == "/subscriptions/bugs/agent"
    assert await Sources(engine, vault).sources() == []
    assert (await verify_audit(engine, "default")).lines == 0


async def test_what_the_file_manages_is_its_own(applier: Applier) -> None:
    await applied(applier, wish())

    with pytest.raises(Conflict):
        await applied(applier, Wish(team="default", managed_by=API, drop=frozenset({(AGENT, "triage")})))


async def test_a_paused_subscription_cannot_be_enabled(engine: Engine, applier: Applier) -> None:
    await applied(applier, wish())

    with pytest.raises(Conflict, match="live"):
        await enable_subscription(engine, team="default", name="bugs", actor="nora", now_ms=NOW)
