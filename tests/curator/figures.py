"""What views leave of published payloads, and which of their declared facts they keep: the table of docs/context.md.

    python -m tests.curator.figures docs/context.md

fetches the packages that the tests fetch, and takes `NBTEST_PAYLOADS_DIR` too where it is set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from curator.curate import selected
from curator.generic import pruned
from curator.tokens import default_counter
from curator.views import view_for
from ingest.catalogue import provider_named
from ingest.inbound import Request
from ingest.normalize import arrivals
from ingest.samples import source_of
from ingest.schemes.base import Proof
from ingest.template import Scope
from payload.pointer import MISSING, reach, steps_of
from schemas.event import Event
from tests.ingest.published.payloads import PACKAGES, folder_of, payloads
from tests.npm.fetch import ROOT, installed

NOW_MS = 1_795_149_372_120
BEGIN = "<!-- made by `python -m tests.curator.figures docs/context.md`: begin -->"
END = "<!-- end of figures -->"
EDITIONS = ("api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35")
OCTOKIT = "`@octokit/webhooks-examples`"


@dataclass(frozen=True)
class Item:
    """One event of a published payload; `facts` are pointers into its data with the values that an agent needs."""

    origin: str
    event: Event
    data: Any
    facts: tuple[tuple[str, Any], ...] = ()


@dataclass
class Figures:
    """Tokens and facts over many events: of all, and of those whose type has a default view."""

    events: int = 0
    raw: int = 0
    pruned: int = 0
    facts: int = 0
    pruned_facts: int = 0
    viewed: int = 0
    viewed_raw: int = 0
    viewed_left: int = 0
    viewed_facts: int = 0
    kept_facts: int = 0

    @property
    def pruned_away(self) -> float:
        """The share of the tokens that the generic view leaves out."""
        return 1 - self.pruned / self.raw

    @property
    def viewed_away(self) -> float:
        """The share that default views leave out, of the bodies that they are for."""
        return 1 - self.viewed_left / self.viewed_raw if self.viewed_raw else 0.0

    @property
    def pruned_kept(self) -> float:
        """The share of the facts that the generic view keeps where they stood."""
        return self.pruned_facts / self.facts if self.facts else 1.0


def octokit(editions: tuple[str, ...] = EDITIONS) -> Iterator[Item]:
    """Every example of GitHub's events and GitHub Enterprise Server's, a body that comes twice once."""
    folder = installed(ROOT / "tests/npm") / "node_modules/@octokit/webhooks-examples"
    told: set[bytes] = set()
    for edition in editions:
        for entry in json.loads((folder / edition / "index.json").read_text()):
            for document in entry["examples"]:
                body = orjson.dumps(document)
                if entry["name"] != "ping" and body not in told:
                    told.add(body)
                    headers = [
                        ("Content-Type", "application/json"),
                        ("X-GitHub-Event", entry["name"]),
                        ("X-GitHub-Delivery", "d"),
                    ]
                    yield from _items(OCTOKIT, "github", headers, body)


def published() -> Iterator[Item]:
    """The payloads of the packages that `tests/ingest/published/packages.toml` lists."""
    for package in PACKAGES:
        for take in package["take"]:
            for each in payloads(folder_of(package), take):
                yield from _sent(f"`{package['name']}`", take["provider"], each.content_type, each.body)


def given() -> Iterator[Item]:
    """The payloads in `NBTEST_PAYLOADS_DIR`, where it is set, with the facts that are declared there."""
    folder = os.environ.get("NBTEST_PAYLOADS_DIR")
    if not folder:
        return
    facts = {(each["provider"], each["name"]): each["facts"] for each in _lines(Path(folder) / "facts.jsonl")}
    for each in _lines(Path(folder) / "payloads.jsonl"):
        declared = tuple((fact["pointer"], fact["value"]) for fact in facts.get((each["provider"], each["name"]), ()))
        headers = [(name, value) for name, value in dict(each["headers"]).items()]
        yield from _items("other projects' fixtures", each["provider"], headers, each["body"].encode(), declared)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    # `split`, not `splitlines`: bodies hold other Unicode line separators.
    return (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)


def _sent(origin: str, provider: str, content_type: str, body: bytes) -> Iterator[Item]:
    """With the headers that `nightbell send` would give it."""
    scope = Scope(Request("POST", "https://hooks.example.com/", [("Content-Type", content_type)], body), {})
    chosen = provider_named(provider).send_headers.items()
    headers = [("Content-Type", content_type), *((name, text) for name, choices in chosen if (text := choices.text(scope)))]
    return _items(origin, provider, headers, body)


def _items(
    origin: str, provider: str, headers: list[tuple[str, str]], body: bytes, facts: tuple[tuple[str, Any], ...] = ()
) -> Iterator[Item]:
    request = Request("POST", "https://hooks.example.com/in/source", headers, body)
    found = arrivals(request, source_of(provider_named(provider)), Proof(), NOW_MS, traceparent="")
    for event, data in found:
        yield Item(origin, event, data, facts if len(found) == 1 else ())


@cache
def _paths(facts: tuple[tuple[str, str], ...]) -> tuple[tuple[Any, Any, str], ...]:
    return tuple((steps_of(there), steps_of(here), there) for there, here in facts)


def add(figures: Figures, item: Item) -> list[str]:
    """Count one event; what was lost by its default view."""
    count = default_counter().count
    small = pruned(item.data)[0]
    figures.events += 1
    figures.raw += (raw := count(orjson.dumps(item.data).decode()))
    figures.pruned += count(orjson.dumps(small).decode())
    view = view_for(item.event.type)
    said = selected(item.event, item.data, None)[0] if view else None
    lost = []
    if view:
        figures.viewed += 1
        figures.viewed_raw += raw
        figures.viewed_left += count(orjson.dumps(said).decode())
    for there, here, name in _paths(view.facts) if view else ():
        value = reach(item.data, there)
        if value is MISSING or value in (None, "", [], {}):
            continue
        figures.facts += 1
        figures.viewed_facts += 1
        figures.pruned_facts += reach(small, there) == value
        if reach(said, here) == value:
            figures.kept_facts += 1
        else:
            lost.append(f"{item.event.type}: {name}")
    for pointer, value in item.facts:
        figures.facts += 1
        figures.pruned_facts += reach(small, steps_of(pointer)) == value
    return lost


def measured(items: Iterator[Item]) -> tuple[dict[tuple[str, str], Figures], list[str]]:
    """Figures by origin and vendor, and what default views lost."""
    found: dict[tuple[str, str], Figures] = {}
    lost: list[str] = []
    for item in items:
        lost += add(found.setdefault((item.origin, item.event.family), Figures()), item)
    return found, lost


def summed(figures: Iterator[Figures]) -> Figures:
    """All of them together."""
    total = Figures()
    for each in figures:
        for name, value in vars(each).items():
            setattr(total, name, getattr(total, name) + value)
    return total


def table(found: dict[tuple[str, str], Figures]) -> str:
    """One row a vendor and origin, and the sum of each origin."""
    rows = [
        "| payloads of | vendor | events | generic view: fewer tokens | facts kept | default views: events | fewer tokens | facts kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    origins = list(dict.fromkeys(origin for origin, _ in found))
    for origin in origins:
        each = {family: figures for (named, family), figures in sorted(found.items()) if named == origin}
        rows += [_row(origin, family, figures) for family, figures in each.items()]
        if len(each) > 1:
            rows.append(_row(origin, "**all**", summed(iter(each.values()))))
    return "\n".join([*rows, _row("**all of these**", "", summed(iter(found.values())))])


def _row(origin: str, family: str, each: Figures) -> str:
    return (
        f"| {origin} | {family} | {each.events} | {_percent(each.pruned_away)} | {each.pruned_facts} of {each.facts} | {each.viewed}"
        f" | {_percent(each.viewed_away)} | {each.kept_facts} of {each.viewed_facts} |"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def main(paths: list[str]) -> None:
    """Rewrite the table in each file."""
    found, lost = measured(chain(octokit(), published(), given()))
    for name in lost:
        print(f"lost by its default view: {name}", file=sys.stderr)
    text = table(found)
    for path in map(Path, paths):
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
