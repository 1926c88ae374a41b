"""The five workloads of the matcher's benchmark: rules and events whose values come from the same pools."""

from __future__ import annotations

import random
from collections.abc import Callable

TEAM = "default"
EVENTS = 256
TYPES = [
    f"github.{noun}.{verb}"
    for noun in ("issues", "push", "pull_request", "check_run", "release")
    for verb in ("opened", "closed", "edited", "made")
]
ACTIONS = ["opened", "closed", "edited", "labeled", "assigned", "reopened", "transferred", "pinned"]
LANGUAGES = ["python", "go", "rust", "java", "typescript", "c", "ruby", "kotlin"]


def event(rng: random.Random, rules: int) -> dict[str, object]:
    """A GitHub-like event of about 3 KB, whose values are drawn from the same pools as the rules'."""
    tenant, repo = rng.randrange(max(10, rules // 10)), rng.randrange(max(10, rules // 5))
    user = {
        f"{name}_url": f"https://api.github.com/users/u{repo}/{name}"
        for name in ("followers", "gists", "starred", "repos", "events", "orgs")
    }
    return {
        "specversion": "1.0",
        "id": f"evt_{rng.getrandbits(100):026x}",
        "source": f"github-{tenant % 200}",
        "type": rng.choice(TYPES),
        "subject": f"org{tenant}/repo-{repo}/issues/{rng.randrange(5000)}",
        "time": "2026-11-21T10:00:00Z",
        "datacontenttype": "application/json",
        "team": TEAM,
        "provider": "github",
        "actor": f"user{rng.randrange(pool(rules))}",
        "data": {
            "action": rng.choice(ACTIONS),
            "tenant": f"t{tenant}",
            "number": rng.randrange(10_000),
            "priority": rng.randrange(10),
            "ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
            "repository": {
                "name": f"repo-{repo}",
                "full_name": f"org{tenant}/repo-{repo}",
                "private": rng.random() < 0.3,
                "language": rng.choice(LANGUAGES),
                "stars": rng.randrange(100_000),
                "default_branch": rng.choice(["main", "master", "dev"]),
                "owner": {"login": f"org{tenant}", "id": tenant, **user},
            },
            "issue": {
                "title": f"Checkout charges twice in {rng.choice(LANGUAGES)} build {rng.randrange(1000)}",
                "state": rng.choice(["open", "closed"]),
                "comments": rng.randrange(50),
                "body": "It happened again on the second attempt. " * 12,
                "user": {"login": f"user{rng.randrange(pool(rules))}", **user},
            },
            "sender": {"login": f"user{rng.randrange(pool(rules))}", "type": rng.choice(["User", "Bot"]), **user},
        },
    }


def routing(rng: random.Random, rules: int) -> dict[str, object]:
    tenant, repo = rng.randrange(max(10, rules // 10)), rng.randrange(max(10, rules // 5))
    return {
        "source": [f"github-{tenant % 200}"],
        "type": [rng.choice(TYPES)],
        "data": {"tenant": [f"t{tenant}"], "repository": {"name": [f"repo-{repo}"]}},
    }


# Of the eighteen fields below, a rule of `hetero` has one of the first eight (many values) and one or two of any: some 160 field sets.
_FIELDS: list[Callable[[random.Random, int], tuple[str, object]]] = [
    lambda rng, rules: ("actor", f"user{rng.randrange(pool(rules))}"),
    lambda rng, rules: ("data.tenant", f"t{rng.randrange(max(10, rules // 10))}"),
    lambda rng, _: ("data.number", rng.randrange(10_000)),
    lambda rng, rules: ("data.repository.name", f"repo-{rng.randrange(max(10, rules // 5))}"),
    lambda rng, _: ("data.repository.stars", rng.randrange(100_000)),
    lambda rng, rules: ("data.repository.owner.login", f"org{rng.randrange(max(10, rules // 10))}"),
    lambda rng, rules: ("data.issue.user.login", f"user{rng.randrange(pool(rules))}"),
    lambda rng, rules: ("data.sender.login", f"user{rng.randrange(pool(rules))}"),
    lambda rng, _: ("source", f"github-{rng.randrange(200)}"),
    lambda rng, _: ("type", rng.choice(TYPES)),
    lambda rng, _: ("data.action", rng.choice(ACTIONS)),
    lambda rng, _: ("data.priority", rng.randrange(10)),
    lambda rng, _: ("data.repository.private", rng.random() < 0.3),
    lambda rng, _: ("data.repository.language", rng.choice(LANGUAGES)),
    lambda rng, _: ("data.repository.default_branch", rng.choice(["main", "master", "dev"])),
    lambda rng, _: ("data.issue.state", rng.choice(["open", "closed"])),
    lambda rng, _: ("data.issue.comments", rng.randrange(50)),
    lambda rng, _: ("data.sender.type", rng.choice(["User", "Bot"])),
]


def pool(rules: int) -> int:
    """How many people there are: more where there are more rules."""
    return max(2000, rules // 5)


def nested(path: str, value: object, into: dict[str, object]) -> None:
    *parents, name = path.split(".")
    place = into
    for parent in parents:
        place = place.setdefault(parent, {})  # type: ignore[assignment]  # parents are always objects here
    place[name] = value


def hetero(rng: random.Random, rules: int) -> dict[str, object]:
    found: dict[str, object] = {}
    wide = rng.randrange(8)
    others = [at for at in range(len(_FIELDS)) if at != wide]
    for field in (_FIELDS[at] for at in [wide, *rng.sample(others, rng.choice([1, 2]))]):
        path, value = field(rng, rules)
        nested(path, [value], found)
    return found


def fanout(rng: random.Random, rules: int) -> dict[str, object]:
    tenants = max(10, rules // 10)
    return {"type": [rng.choice(TYPES)], "data": {"tenant": [f"t{rng.randrange(tenants // 20 or 1)}"]}}


def mixed(rng: random.Random, rules: int) -> dict[str, object]:
    found: dict[str, object] = {}
    wide: list[tuple[str, object]] = [
        ("data.tenant", f"t{rng.randrange(max(10, rules // 10))}"),
        ("subject", {"prefix": f"org{rng.randrange(max(10, rules // 10))}/"}),
        ("data.repository.full_name", {"suffix": f"/repo-{rng.randrange(max(10, rules // 5))}"}),
        ("data.issue.title", {"wildcard": f"*{rng.choice(LANGUAGES)} build {rng.randrange(1000)}*"}),
        ("data.ip", {"cidr": f"10.{rng.randrange(256)}.{rng.randrange(0, 256, 16)}.0/20"}),
        ("actor", {"equals-ignore-case": f"USER{rng.randrange(pool(rules))}"}),
    ]
    low = rng.randrange(90_000)
    narrow: list[tuple[str, object]] = [
        ("data.action", {"anything-but": [rng.choice(ACTIONS)]}),
        ("data.repository.stars", {"numeric": [">", low, "<", low + 1000]}),
        ("data.priority", {"numeric": [">=", rng.randrange(10)]}),
        ("data.sender.login", {"exists": True}),
    ]
    nested("type", [rng.choice(TYPES)], found)
    for path, element in (rng.choice(wide), rng.choice(narrow)):
        nested(path, [element], found)
    return found


def hotprefix(rng: random.Random, rules: int) -> dict[str, object]:
    return {
        "type": [TYPES[0]],
        "data": {
            "repository": {"full_name": [{"prefix": f"org{rng.randrange(max(10, rules // 10))}/repo-{rng.randrange(10)}"}]}
        },
    }


WORKLOADS = {"routing": routing, "hetero": hetero, "fanout": fanout, "mixed": mixed, "hotprefix": hotprefix}


def fan(rng: random.Random, rules: int, workload: str) -> dict[str, object]:
    found = event(rng, rules)
    data = found["data"]
    assert isinstance(data, dict)
    if workload == "fanout":
        data["tenant"] = f"t{rng.randrange(max(10, rules // 10) // 20 or 1)}"
    if workload == "hotprefix":
        found["type"] = TYPES[0]
    return found
