"""What the store says about agents and subscriptions today, made ready for many attempts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dispatcher.flow import begins_at_once, is_flowing, share
from dispatcher.lanes import AgentKey, Part
from dispatcher.ports import Asked, Roster
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.base import AgentProtocol, Target
from dispatcher.signing import Signer
from schemas.config import AgentConfig, QuotaSpec, SubscriptionConfig, SubscriptionState, SupervisionSpec
from schemas.errors import BadSetting
from schemas.ids import shards_of


@dataclass(frozen=True, slots=True)
class Setting:
    """An agent as of today.  `problem` says why it cannot be called at all: then there is neither protocol nor target."""

    key: AgentKey
    shard: int
    max_concurrency: int
    rate_per_s: float | None
    burst: int
    timeout_s: float
    allow_private: bool
    protocol: AgentProtocol | None
    target: Target | None
    problem: str = ""
    supervision: SupervisionSpec | None = None  # None: a 202 is the end, nobody watches its runs
    is_pull: bool = False
    quota: QuotaSpec | None = None  # its team's
    part_of: str = ""  # the agent, where this is one of its parts
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """The agent's name, as the ledger knows it."""
        return self.part_of or self.key[1]

    @property
    def asked(self) -> Asked:
        """What of the ledger's lanes is this one's."""
        return (self.key[0], self.part_of, self.shard) if self.part_of else self.key


@dataclass(frozen=True, slots=True)
class Book:
    """Agents by (team, name), subscriptions by uid and by their agent."""

    version: int = -1
    settings: Mapping[AgentKey, Setting] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionConfig] = field(default_factory=dict)
    of_agent: Mapping[AgentKey, tuple[SubscriptionConfig, ...]] = field(default_factory=dict)
    parts: Mapping[Part, AgentKey] = field(default_factory=dict)  # of agents that are spread over shards
    flowing: frozenset[str] = frozenset()  # those whose flow control is looked at before an attempt
    prompt: frozenset[str] = frozenset()  # those whose first attempts may begin with their admission

    def live(self, key: AgentKey) -> tuple[list[str], bool]:
        """The uids of an agent's live subscriptions, and whether that is all it has."""
        all_of_it = self.of_agent.get(key, ())
        live = [found.uid for found in all_of_it if found.spec.state is SubscriptionState.LIVE]
        return live, len(live) == len(all_of_it)


async def read_book(roster: Roster, before: Book, *, user_agent: str) -> Book:
    """Today's book: the same object where nothing changed.  The version is read first, so that no change is missed."""
    version = await roster.version()
    if version == before.version:
        return before
    agents, subscriptions = await roster.agents(), await roster.subscriptions()
    by_agent: dict[AgentKey, tuple[SubscriptionConfig, ...]] = {}
    settings = settings_of(agents, user_agent=user_agent)
    parts = {(setting.key[0], setting.part_of, setting.shard): setting.key for setting in settings.values() if setting.part_of}
    keys: dict[tuple[str, str], list[AgentKey]] = {}
    for (team, name, _), key in parts.items():
        keys.setdefault((team, name), []).append(key)
    for found in subscriptions:
        for agent in [(found.team, name) for name in found.spec.agents]:
            for key in keys.get(agent, (agent,)):
                by_agent[key] = (*by_agent.get(key, ()), found)
    flowing = frozenset(found.uid for found in subscriptions if is_flowing(found.spec))
    prompt = frozenset(found.uid for found in subscriptions if begins_at_once(found.spec))
    return Book(version, settings, {found.uid: found for found in subscriptions}, by_agent, parts, flowing, prompt)


def settings_of(agents: Iterable[AgentConfig], *, user_agent: str) -> dict[AgentKey, Setting]:
    """The agents' settings; one that cannot be called keeps its place, so that its lanes are held and not lost sight of."""
    found: dict[AgentKey, Setting] = {}
    for agent in agents:
        setting = setting_of(agent, user_agent=user_agent)
        if agent.spec.shards == 1:
            found[setting.key] = setting
        else:
            found.update((part.key, part) for part in parts_of(setting, agent.spec.shards))
    return found


def parts_of(setting: Setting, count: int) -> Iterator[Setting]:
    """An agent as so many: each has a shard of its own and its share of the limits, which together are the agent's."""
    team, name = setting.key
    for number, shard in enumerate(shards_of(team, name, count)):
        yield replace(
            setting,
            key=(team, name if number == 0 else f"{name}~{number}"),
            part_of=name,
            part=number,
            parts=count,
            shard=shard,
            max_concurrency=share(setting.max_concurrency, number, count),
            rate_per_s=None if setting.rate_per_s is None else setting.rate_per_s / count,
            burst=max(1, share(setting.burst, number, count)),
        )


def setting_of(agent: AgentConfig, *, user_agent: str) -> Setting:
    """One agent's setting: its secrets decoded, its own headers in lower case."""
    spec, problem, target = agent.spec, "", None
    protocol = PROTOCOLS.get(spec.protocol)
    if protocol is None:
        problem = f"unknown protocol {spec.protocol!r}; known: {', '.join(sorted(PROTOCOLS))}"
    try:
        headers = {name.lower(): value for name, value in spec.headers.items()}
        target = Target(agent.name, spec.url, Signer(agent.secrets), headers, user_agent)
    except BadSetting as exc:
        problem = exc.detail
    return Setting(
        (agent.team, agent.name),
        agent.shard,
        spec.max_concurrency,
        spec.rate_per_s,
        spec.burst,
        spec.timeout_s,
        spec.allow_private,
        None if problem else protocol,
        None if problem else target,
        problem,
        spec.supervision if spec.is_pull or spec.supervision.accepted == "supervise" else None,
        spec.is_pull,
        agent.quota,
    )
