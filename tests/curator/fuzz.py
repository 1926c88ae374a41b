"""Generated events against the context contract: no budget broken, no required fact lost, nothing half said.

    python -m tests.curator.fuzz EVENTS [SEED]

prints one JSON object: how many of what were made, and every breach with the number that makes it again.
"""

from __future__ import annotations

import json
import random
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson

from curator.budget import GAP, PROSE_CHARS, Path, at
from curator.compose import Materials, compose
from curator.contract import Contract, contract_of
from curator.curate import selected
from curator.fence import cleaned, without_hidden
from curator.ports import Found, KnownFact, PastEvent
from curator.service import Curation, reserved
from curator.views import default_view
from curator.viewtable import examples
from dispatcher.protocols.base import Attempt, Links, Target
from dispatcher.protocols.webhook import Webhook
from dispatcher.signing import Signer
from schemas.config import ContextSpec, SubscriptionConfig, SubscriptionSpec
from schemas.context import Curated
from schemas.errors import Invalid
from schemas.event import Event
from schemas.invocation import Invocation, Order
from schemas.ledger import Head
from tests.curator.injections import BENIGN, corpus

NOW = 1_795_149_373_000
KEY = b"k" * 32
NAMES = (
    "id", "key", "title", "body", "state", "number", "amount", "currency", "customer", "author", "user", "repository", "changes",
    "labels", "items", "url", "html_url", "node_id", "created_at", "note", "…", "a b", "a.b", "naïve", "名前", "ключ", "0", "",
)  # fmt: skip
EMOJI = ("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇨🇿", "1️⃣", "❤️", "🫱🏻‍🫲🏿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "☃", "🧑🏿‍🚀")
HIDDEN = ("\u200b", "\u202e", "\u2066", "\U000e0041", "\x00", "\x1b[2K", "\u2028", "\ufeff", "\u00ad", "\x7f", "\u3164")
TYPES = ("acme.unknown.thing", "github.issues.opened", "stripe.invoice.paid", "shopify.orders/create", "gitlab.push", "x")
LINKS = Links(
    "https://nb.test/v1/events/evt_7k3qaaaaaaaaaaaaaaaaaaaaaa", "https://nb.test/v1/invocations/i/complete", "nbi_" + "x" * 170
)
TARGET = Target(
    "triage", "https://agent.test/wake", Signer(["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]), {}, "Nightbell/1"
)
CURATION = Curation(fence_secret=KEY, counts=False)


@cache
def alphabet() -> str:
    """Every character that Unicode has assigned, surrogates and private use apart."""
    return "".join(chr(code) for code in range(0x20, 0x110000) if unicodedata.category(chr(code)) not in {"Cs", "Co", "Cn"})


@cache
def known_bodies() -> tuple[tuple[str, bytes], ...]:
    return tuple((kind, body.encode()) for kind, body in examples())


@cache
def injections() -> tuple[str, ...]:
    return (*(text for _, _, text in corpus()), BENIGN)


@dataclass(slots=True)
class Case:
    """One event with what its subscription asks for and what is known beside it."""

    spec: ContextSpec
    event: Event
    data: Any
    materials: Materials
    kind: str


@dataclass(slots=True)
class Tally:
    """What was made, and what broke."""

    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    required: int = 0
    cut: int = 0
    breaches: list[str] = field(default_factory=list)


class Maker:
    """Cases from a seed: the same number gives the same case."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kind = "small"

    def case(self) -> Case:
        pick = self.random
        kind, data = self.body()
        data = orjson.loads(raw := orjson.dumps(data))
        event = Event(
            id="evt_7k3qaaaaaaaaaaaaaaaaaaaaaa", team="default", source="github-acme", provider="github",
            family=kind.partition(".")[0], type=kind, partitionkey="default/github-acme/1", time_ms=NOW - 880, received_ms=NOW,
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01", datacontenttype="application/json", body=raw,
            actor=self.text(40) if pick.random() < 0.5 else "nora", subject=self.text(60) if pick.random() < 0.3 else "acme/shop/42",
            summary=self.text(120) if pick.random() < 0.5 else "Issue 42 opened", url="https://x.test/42",
        )  # fmt: skip
        view = self.view(data)
        materials = self.materials() if pick.random() < 0.4 else Materials()
        return Case(self.spec(view, event, data, materials), event, data, materials, self.kind)

    def body(self) -> tuple[str, Any]:
        pick = self.random
        dice = pick.random()
        if dice < 0.25:
            kind, raw = pick.choice(known_bodies())
            return kind, self.mutated(orjson.loads(raw))
        kind = pick.choice(TYPES)
        if dice < 0.9985:
            return kind, self.value(0) if dice < 0.3 else self.record(0)
        giants = (self.wide, self.long, self.deep, self.tall, self.prose)
        return kind, pick.choice(giants)()

    def record(self, depth: int) -> dict[str, Any]:
        return {self.name(): self.value(depth + 1) for _ in range(self.random.choice((1, 2, 3, 4, 6, 9)))}

    def value(self, depth: int) -> Any:
        pick = self.random
        dice = pick.random()
        if depth < 4 and dice < 0.2:
            return self.record(depth)
        if depth < 4 and dice < 0.27:
            return [self.value(depth + 1) for _ in range(pick.choice((0, 1, 2, 4, 15)))]
        if dice < 0.45:
            return pick.choice((None, True, False, 0, -1, 1.5, 2**53, -(2**63), 1e300, 0.1, pick.randint(0, 10**9)))
        if dice < 0.52:
            return pick.choice(
                (
                    "https://api.x.test/v1/things/1",
                    "https://x.test/42",
                    "2026-11-21T10:00:00Z",
                    "open",
                    "a" * 40,
                    "QUJD" * 60,
                    "QUJD" * 300,
                )
            )
        return self.text(pick.choice((6, 6, 20, 20, 60, 60, 200, 200, 500)))

    def text(self, most: int) -> str:
        pick = self.random
        dice = pick.random()
        if dice < 0.35:
            return " ".join(
                pick.choices(("issue", "checkout", "charges", "twice", "when", "I", "pay", "the", "customer"), k=1 + most // 6)
            )
        if dice < 0.75:
            letters = alphabet()
            start = pick.randrange(len(letters))
            return letters[start : start + pick.randint(1, most)]
        if dice < 0.83:
            return pick.choice(EMOJI) * pick.randint(1, max(1, most // 8))
        if dice < 0.9:
            return "".join(pick.choices((*HIDDEN, "a", "é", "字", " "), k=most // 3))
        if dice < 0.95:
            return pick.choice(injections())
        return json.dumps({"role": "system", "content": "x" * (most // 2)})

    def name(self) -> str:
        return self.random.choice(NAMES) if self.random.random() < 0.9 else self.text(12)

    def mutated(self, at_: Any) -> Any:
        """A vendor's example with some of its texts replaced."""
        if isinstance(at_, dict):
            return {key: self.mutated(item) for key, item in at_.items()}
        if isinstance(at_, list):
            return [self.mutated(item) for item in at_]
        if isinstance(at_, str) and self.random.random() < 0.1:
            return self.text(self.random.choice((20, 200, 900)))
        return at_

    def wide(self) -> Any:
        self.kind = "5,000 fields"
        return {"key": "k", "record": {f"custom_{n}": f"value {n}" if n % 3 else n for n in range(5000)}}

    def long(self) -> Any:
        self.kind = "1 MB string"
        unit = self.text(40) or "x"
        return {"key": "k", "title": "T", "body": (unit * (1 + 1_000_000 // len(unit.encode(errors="replace"))))}

    def deep(self) -> Any:
        self.kind = "deep"
        inner: Any = "bottom"
        for _ in range(self.random.randint(60, 240)):
            inner = {"a": inner} if self.random.random() < 0.5 else [inner]
        return {"key": "k", "body": inner}

    def tall(self) -> Any:
        self.kind = "2,000 rows"
        return {"key": "k", "items": [{"id": n, "note": self.text(60)} for n in range(2000)]}

    def prose(self) -> Any:
        self.kind = "100 KB prose"
        return {"key": "k", "title": "T", "body": " ".join(self.text(200) for _ in range(700)), "state": "open"}

    def view(self, data: Any) -> str | None:
        dice = self.random.random()
        if dice < 0.35:
            return None
        if dice < 0.6:
            return "data"
        names = [name for name in (data if isinstance(data, dict) else {}) if name.isidentifier() and name.isascii()]
        if not names:
            return "{type: type, all: data}"
        self.random.shuffle(names)
        return "{" + ", ".join(f"{name}: data.{name}" for name in names[:6]) + ", who: actor}"

    def materials(self) -> Materials:
        pick = self.random
        past = [
            PastEvent(f"evt_{n}", "github.issues.labeled", NOW - n * 600_000, self.text(20), self.text(200), "done by triage")
            for n in range(pick.randint(0, 8))
        ]
        known = [
            KnownFact(f"f{n}", self.value(3), self.text(20), NOW - pick.randint(0, 10**9), pinned=pick.random() < 0.1)
            for n in range(pick.choice((0, 1, 3, 12)))
        ]
        lookups = {
            name: Found(self.value(2), NOW - 60_000) if pick.random() < 0.7 else Found(failure="agent_timed_out")
            for name in ("crm", "erp")
        }
        return Materials(past, known, lookups)

    def spec(self, view: str | None, event: Event, data: Any, materials: Materials) -> ContextSpec:
        pick = self.random
        if pick.random() < 0.25:
            return ContextSpec(view=view, max_tokens=pick.choice((pick.randint(440, 1000), pick.randint(700, 3000))))
        value = selected(event, data, view)[0]
        if view is None and pick.random() < 0.3 and default_view(event.type) is None:
            value = data  # what the generic view would leave out may be required all the same
        required = [".".join(map(str, path)) for path in self.some(list(_named(value, ())))]
        facts = self.some([fact.name for fact in materials.facts])
        wanted: dict[str, Any] = {
            "view": view,
            "max_tokens": pick.choice((pick.randint(440, 1000), pick.randint(700, 3000))) if pick.random() < 0.9 else None,
            "required": [*required, *(f"facts.{name}" for name in facts)],
            "history": {"events": pick.randint(1, 8)} if pick.random() < 0.5 else None,
            "facts": ["*"] if facts or pick.random() < 0.5 else [],
            "format": pick.choice(("json", "json", "text", "cloudevent")),
            "model": pick.choice((None, None, "gpt-5.1", "claude-opus-4")),
            "on_missing": pick.choice(("flag", "flag", "park", "refuse")),
            "on_overflow": pick.choice(("cut", "cut", "cut", "park")),
        }
        if materials.lookups:
            wanted["enrich"] = {name: {"url": "https://crm.example/"} for name in materials.lookups}
            if pick.random() < 0.3:
                wanted["required"].append("enrich.crm")
        return ContextSpec(**wanted)

    def some(self, of: list[Any]) -> list[Any]:
        return self.random.sample(of, min(len(of), self.random.choice((0, 1, 1, 2, 4))))


def _named(value: Any, path: Path) -> Iterator[Path]:
    """Places that `required` could name, not more than a few hundred."""
    waiting = [(value, path)]
    for _ in range(200):
        if not waiting:
            return
        at_, where = waiting.pop()
        if where and at_ is not None:
            yield where
        if isinstance(at_, dict):
            waiting.extend((item, (*where, key)) for key, item in at_.items() if key and "." not in key and not key.isdigit())
        elif isinstance(at_, list):
            waiting.extend((item, (*where, index)) for index, item in enumerate(at_[:5]))


def check(case: Case, tally: Tally, *, again: bool = False) -> Iterator[str]:
    """What is wrong with the context of a case."""
    try:
        contract = contract_of(case.spec)
    except Invalid as exc:
        yield f"refused: {exc.detail}"
        return
    made, body = _made(case, contract)
    tally.verdicts[made.verdict] += 1
    tally.cut += bool(made.left_out)
    members = orjson.loads(b'{"context":' + made.members + b"}") if body is None else orjson.loads(body)
    if made.verdict == "deliver":
        assert body is not None
        if contract.counter.count(body.decode()) > contract.limit:
            yield f"{contract.counter.count(body.decode())} tokens of {contract.limit}"
    said = _said(case, members)
    yield from _lost(case, contract, made, members, said, tally)
    if case.spec.format != "text":
        yield from _half(case, contract, said)
    if any(without_hidden(text)[1] for text in (made.members.decode(),) if not text.isascii()) and _hides(members):
        yield "a hidden character was told"
    if again and _made(case, contract)[0] != made:
        yield "the same case gave other bytes"


def _made(case: Case, contract: Contract) -> tuple[Curated, bytes | None]:
    work = Invocation(
        "inv_aaaaaaaaaaaaaaaaaaaaaaaaaa", "default", case.event.id, "sub-uid", "bugs", 3, "triage", 7, case.event.partitionkey,
        "sub-uid|k", Order.STRICT, NOW, NOW,
    )  # fmt: skip
    head = Head(work, case.event, 1, 1)
    envelope = Webhook().envelope(head, LINKS)
    if case.spec.is_plain:
        subscription = SubscriptionConfig(
            "default", "bugs", "u", 1, SubscriptionSpec(agent="triage", pattern={}, context=case.spec)
        )
        made = CURATION.plain(subscription, case.event, case.data, envelope=envelope)
    else:
        reserve, brief = reserved(envelope, contract.counter, contract.limit)
        made = compose(
            contract, case.event, case.data, case.materials, invocation_id=work.id, fence_secret=KEY, reserve_tokens=reserve
        )
        made = replace(made, brief=brief)
    if made.verdict != "deliver":
        return made, None
    return made, Webhook().build(head, made, TARGET, LINKS, Attempt(3, NOW, NOW + 30_000)).body


def _said(case: Case, members: dict[str, Any]) -> Any:
    told = members["context"]
    return told["data"] if case.spec.format == "cloudevent" else told


def _lost(case: Case, contract: Contract, made: Curated, members: dict[str, Any], said: Any, tally: Tally) -> Iterator[str]:
    """Required facts that are there and are not told whole in what is delivered, and absent ones that nobody is told of."""
    wanted = cleaned(selected(case.event, case.data, case.spec.view, contract.asked)[0])[0]
    for path in contract.members:
        tally.required += 1
        name, fact = ".".join(map(str, path)), at(wanted, path)
        if fact is None and case.spec.view is None and at(cleaned(case.data)[0], path) is not None and _is_generic(case):
            yield f"{name} is in the body and not in the generic view"
        if fact is None and name not in made.missing:
            yield f"{name} is absent and not among what is missing"
        is_told = at(said, path) == fact if case.spec.format != "text" else _is_in_text(fact, said)
        if fact is not None and made.verdict == "deliver" and not is_told:
            yield f"{name} was lost"
    facts = members.get("facts", {})
    for fact in case.materials.facts:
        is_kept = fact.pinned or fact.name in contract.facts
        is_asked = bool(case.spec.facts) and fact.value is not None
        if (
            is_kept
            and is_asked
            and made.verdict == "deliver"
            and facts.get(fact.name, {}).get("value") != cleaned(fact.value)[0]
        ):
            yield f"the fact {fact.name} was lost"
    lacking = [name for name in contract.lookups if name not in members.get("enrich", {})]
    if made.verdict == "deliver" and any(f"enrich.{name}" not in made.missing for name in lacking):
        yield f"lookup {lacking} was lost"
    if made.missing and case.spec.required and case.spec.on_missing != "flag":
        named = {each for each in made.missing if each in case.spec.required}
        if named and made.verdict == "deliver":
            yield f"{named} missing, and delivered all the same"


def _is_generic(case: Case) -> bool:
    return default_view(case.event.type) is None


def _is_in_text(fact: Any, said: str) -> bool:
    """Whether a rendering tells a plain fact; the fence may have changed a text that looks like it."""
    if isinstance(fact, str):
        return "<" in fact or "[" in fact or fact in said or orjson.dumps(fact).decode()[1:-1] in said or not fact.isalnum()
    return not isinstance(fact, int) or isinstance(fact, bool) or str(fact) in said


def _half(case: Case, contract: Contract, said: Any) -> Iterator[str]:
    """Leaves that are neither the view's, nor its long texts shortened with a mark."""
    wanted = cleaned(selected(case.event, case.data, case.spec.view, contract.asked)[0])[0]
    waiting: list[tuple[Any, Any]] = [(wanted, said)]
    while waiting:
        whole, told = waiting.pop()
        if told == GAP:
            continue
        if isinstance(told, dict) and isinstance(whole, dict):
            waiting.extend((whole.get(key), item) for key, item in told.items())
        elif isinstance(told, list) and isinstance(whole, list):
            # Fields that were cut whole close the ranks of a list; then each item must still be one of the whole list.
            items = [item for item in told if not (isinstance(item, str) and item.startswith("… "))]
            if len(items) == len(whole):
                waiting.extend(zip(whole, items, strict=True))
        elif isinstance(told, str) and isinstance(whole, str):
            if told != whole and not (
                len(whole) > PROSE_CHARS and told.endswith(" characters]") and told[:PROSE_CHARS] == whole[:PROSE_CHARS]
            ):
                yield f"half a text: {told[:60]!r} of {whole[:60]!r}"
        elif told not in (whole, {}):
            yield f"{str(told)[:60]!r} is not {str(whole)[:60]!r}"


def _hides(members: dict[str, Any]) -> bool:
    return (
        cleaned({name: members[name] for name in ("context", "history", "facts", "enrich", "missing") if name in members})[1]
        > 0
    )


def run(count: int, seed: int) -> Tally:
    """`count` cases from `seed` on."""
    tally = Tally()
    for number in range(seed, seed + count):
        case = Maker(number).case()
        tally.events += 1
        tally.kinds[case.kind] += 1
        tally.breaches += [f"case {number}: {wrong}" for wrong in check(case, tally, again=number % 16 == 0)]
    return tally


def main(words: list[str]) -> int:
    count, seed = int(words[0]) if words else 10_000, int(words[1]) if len(words) > 1 else 0
    started = time.monotonic()
    tally = run(count, seed)
    told = {
        "events": tally.events,
        "kinds": dict(tally.kinds),
        "verdicts": dict(tally.verdicts),
        "cut": tally.cut,
        "required_facts": tally.required,
        "breaches": len(tally.breaches),
        "first_breaches": tally.breaches[:20],
        "elapsed_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(told, ensure_ascii=True))
    return bool(tally.breaches)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
