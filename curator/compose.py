"""The whole contract: view, history, facts and lookups in one budget, with what is required never cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson

from curator.budget import Fitted, at, fitted
from curator.contract import Contract
from curator.curate import raw_tokens, selected, written
from curator.facts import chosen, told
from curator.fence import cleaned, mark_for
from curator.formats import as_cloudevent, as_text
from curator.history import age, lines
from curator.ports import Found, KnownFact, PastEvent
from curator.provenance import provenance
from schemas.context import Curated
from schemas.event import Event

JUNCTION_TOKENS = 4  # `,"name":` between two parts, at most, beyond the name itself
MAX_NAMED_CUTS = 8
CUT_ROUNDS = 6
TEMPLATE_FAILED = "the template failed: plain lines stand in its place"


@dataclass(frozen=True, slots=True)
class Materials:
    """What is known beside the event when its context is made; `lost` says why a part could not be gathered."""

    history: Sequence[PastEvent] = ()
    facts: Sequence[KnownFact] = ()
    lookups: Mapping[str, Found] = field(default_factory=dict)
    verified: bool = True
    lost: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    """A context on its way: the parts still in it, in the order in which they are sacrificed from the end."""

    value: Any
    encoded: bytes
    history: list[str]
    facts: list[KnownFact]
    lookups: list[tuple[str, Found]]
    missing: list[str]
    notes: tuple[str, ...] = ()
    cut: list[str] = field(default_factory=list)
    removed: int = 0


def compose(
    contract: Contract,
    event: Event,
    data: Any,
    materials: Materials,
    *,
    invocation_id: str,
    fence_secret: bytes,
    reserve_tokens: int = 0,
) -> Curated:
    """The context that a contract asks for, within its budget; pure, and the same bytes for the same arguments.

    `reserve_tokens` is what the protocol's own envelope takes of the budget.  Cut first is the oldest history, then the oldest
    facts that are neither pinned nor required, then the last lookups, then the view's last fields.
    """
    value, notes = selected(event, data, contract.spec.view, contract.asked)
    encoded, value, notes = written(value, data, notes)
    draft = _draft(contract, event, materials, value, encoded)
    draft.notes = (*notes, *draft.notes)
    says = provenance(event, data, verified=materials.verified)
    raw = raw_tokens(event, contract.counter, exact=False)
    mark = mark_for(fence_secret, invocation_id)
    room = contract.limit - reserve_tokens
    made = _Maker(contract, event, mark, says, raw)
    fits = made.cut_to(draft, room)
    return _told(contract, draft, made, room, fits=fits)


def _draft(contract: Contract, event: Event, materials: Materials, value: Any, encoded: bytes) -> _Draft:
    spec, now_ms = contract.spec, event.received_ms
    history = (
        lines(materials.history, now_ms=now_ms, most=spec.history.events, max_age_ms=int(spec.history.max_age * 1000))
        if spec.history
        else []
    )
    facts = chosen(materials.facts, spec.facts, now_ms=now_ms)
    missing = [f"{name}: {reason}" for name, reason in materials.lost.items()]
    lookups: list[tuple[str, Found]] = []
    removed, notes = 0, []
    for name in spec.enrich:
        found = materials.lookups.get(name, Found(failure="not asked"))
        if found.failure:
            missing.append(f"{name}: {found.failure}")
        else:
            small, taken, shortened = _small(found, spec.enrich[name].max_tokens, contract)
            lookups.append((name, small))
            removed += taken
            notes.extend([f"enrich.{name}: to {spec.enrich[name].max_tokens} tokens"] if shortened else [])
    missing.extend(_absent(contract, value, facts, dict(lookups)))
    told_history, hidden = cleaned(history)
    return _Draft(value, encoded, told_history, facts, lookups, missing, tuple(notes), removed=removed + hidden)


def _small(found: Found, limit: int, contract: Contract) -> tuple[Found, int, bool]:
    """A lookup's answer within its own budget, how many hidden characters it had, and whether something of it was cut."""
    value, removed = cleaned(found.value)
    fits = fitted(value, orjson.dumps(value), limit, contract.counter)
    return Found(fits.value, found.fetched_ms), removed, bool(fits.left_out)


def _absent(contract: Contract, value: Any, facts: Sequence[KnownFact], lookups: Mapping[str, Found]) -> list[str]:
    """Names of what is required and is not there."""
    found = [".".join(map(str, path)) for path in sorted(contract.members, key=str) if at(value, path) is None]
    known = {fact.name for fact in facts}
    found.extend(f"facts.{name}" for name in sorted(contract.facts - known))
    found.extend(f"enrich.{name}" for name in sorted(contract.lookups - set(lookups)))
    return found


class _Maker:
    """Makes the bytes of a draft, counts them, and cuts the draft until they fit."""

    def __init__(self, contract: Contract, event: Event, mark: str, says: dict[str, Any], raw: int) -> None:
        self.contract = contract
        self.event = event
        self.mark = mark
        self.says = says
        self.raw = raw
        self.brief = False
        self.template_failed = False
        self.context = b""
        self.siblings: tuple[tuple[str, bytes], ...] = ()
        self.total = 0
        self.most = 2 * contract.limit + 64  # beyond this it does not matter by how much a text is too long
        self.counted: dict[bytes, int] = {}

    def count(self, text: bytes) -> int:
        """Tokens of `text`, or a few more than `most` where there are more: a giant is not read to its end."""
        found = self.counted.get(text)
        if found is None:
            within = self.contract.counter.count_within(text.decode(), self.most)
            found = self.counted[text] = self.most + 1 if within is None else within
        return found

    def told(self, draft: _Draft) -> bytes:
        spec = self.contract.spec
        if spec.format == "cloudevent":
            return as_cloudevent(self.event, draft.encoded)
        if spec.format == "text":
            inner = self.rendered(spec.template, draft.value) if spec.template else None
            return orjson.dumps(as_text(self.event, draft.value, mark=self.mark, inner=inner))
        return draft.encoded

    def rendered(self, template: str, value: Any) -> str | None:
        from curator.template import rendered  # few subscriptions have one

        inner = rendered(template, {"context": value, "event": self.event.envelope()})
        self.template_failed = inner is None
        return inner

    def beside(self, draft: _Draft, context_tokens: int) -> tuple[tuple[str, bytes], ...]:
        now_ms = self.event.received_ms
        facts, _ = cleaned({fact.name: told(fact, now_ms=now_ms) for fact in draft.facts})
        found = {name: {"value": each.value, "age": age(each.fetched_ms, now_ms)} for name, each in draft.lookups}
        parts: list[tuple[str, Any]] = [
            ("history", draft.history),
            ("facts", facts),
            ("enrich", found),
            ("missing", draft.missing),
            ("provenance", None if self.brief else self.says),
            ("manifest", self.manifest(draft, context_tokens)),
        ]
        return tuple((name, orjson.dumps(value)) for name, value in parts if value)

    def manifest(self, draft: _Draft, context_tokens: int) -> dict[str, Any]:
        if self.brief:
            return {"cut": len(draft.cut)} if draft.cut else {}
        view = self.contract.spec.view
        found: dict[str, Any] = {
            "tokens": {"raw": self.raw, "context": context_tokens},
            "view": sha256(view.encode()).hexdigest()[:8] if view else "default",
            "counter": self.contract.counter.name,
        }
        if self.contract.calibration:
            found["calibration"] = self.contract.calibration
        if draft.cut:
            more = len(draft.cut) - MAX_NAMED_CUTS
            found["cut"] = draft.cut[:MAX_NAMED_CUTS] + ([f"… {more} more"] if more > 0 else [])
        if notes := self.notes(draft):
            found["pruned"] = list(notes)
        if draft.removed:
            found["hidden"] = draft.removed
        return found

    def notes(self, draft: _Draft) -> tuple[str, ...]:
        return (*draft.notes, TEMPLATE_FAILED) if self.template_failed else draft.notes

    def tokens(self, draft: _Draft) -> int:
        """Tokens of everything, counted part by part: the parts together never have more."""
        self.context = self.told(draft)
        own = self.count(self.context) + JUNCTION_TOKENS
        self.siblings = self.beside(draft, own)
        self.total = own + sum(self.count(name.encode()) + self.count(text) + JUNCTION_TOKENS for name, text in self.siblings)
        return self.total

    def cut_to(self, draft: _Draft, room: int) -> bool:
        """Cut `draft` until it has at most `room` tokens; False where even the required is more."""
        if self.tokens(draft) <= room:
            return True
        for cut in (self.cut_history, self.cut_facts, self.cut_lookups):
            if self.fewest(draft, room, cut):
                return True
        if self.cut_view(draft, room):
            return True
        self.brief = True
        return self.tokens(draft) <= room or self.cut_view(draft, room)

    def fewest(self, draft: _Draft, room: int, cut: Callable[[_Draft, _Draft, int], int]) -> bool:
        """Cut as few of a kind as will do; False, with all of them cut, where that is not enough."""
        whole = replace(draft)
        high = cut(draft, whole, len(draft.history) + len(draft.facts) + len(draft.lookups))
        if self.tokens(draft) > room:
            return False
        low = 0
        while low < high:
            middle = (low + high) // 2
            cut(draft, whole, middle)
            low, high = (low, middle) if self.tokens(draft) <= room else (middle + 1, high)
        cut(draft, whole, high)
        return self.tokens(draft) <= room

    @staticmethod
    def cut_history(draft: _Draft, whole: _Draft, count: int) -> int:
        count = min(count, len(whole.history))
        draft.history = whole.history[: len(whole.history) - count]
        draft.cut = [*whole.cut, *([f"history (-{count})"] if count else [])]
        return count

    def cut_facts(self, draft: _Draft, whole: _Draft, count: int) -> int:
        gone = [fact.name for fact in whole.facts if not fact.pinned and fact.name not in self.contract.facts]
        gone = gone[max(0, len(gone) - count) :]
        draft.facts = [fact for fact in whole.facts if fact.name not in set(gone)]
        draft.cut = [*whole.cut, *(f"facts.{name}" for name in reversed(gone))]
        return len(gone)

    def cut_lookups(self, draft: _Draft, whole: _Draft, count: int) -> int:
        gone = [name for name, _ in whole.lookups if name not in self.contract.lookups]
        gone = gone[max(0, len(gone) - count) :]
        draft.lookups = [(name, found) for name, found in whole.lookups if name not in set(gone)]
        draft.cut = [*whole.cut, *(f"enrich.{name}" for name in reversed(gone))]
        return len(gone)

    def cut_view(self, draft: _Draft, room: int) -> bool:
        """Fit the view's output into what the rest leaves.

        The rest grows with the list of cuts, and a text has more tokens than its JSON: so a few rounds, and in the last one
        all goes that is not required.
        """
        whole, before = draft.value, list(draft.cut)
        left = self.count(draft.encoded)
        for round_ in range(CUT_ROUNDS):
            over = self.tokens(draft) - room
            if over <= 0:
                return True
            left = 1 if round_ == CUT_ROUNDS - 1 else left - over
            found = self.fit(whole, max(left, 1))
            draft.value, draft.encoded, draft.cut = found.value, found.encoded, [*before, *found.left_out]
            left = min(left, found.tokens)
        return self.tokens(draft) <= room

    def fit(self, value: Any, limit: int) -> Fitted:
        return fitted(value, orjson.dumps(value), limit, self.contract.counter, required=self.contract.members)


def _told(contract: Contract, draft: _Draft, made: _Maker, room: int, *, fits: bool) -> Curated:
    spec = contract.spec
    lacking = _absent(contract, draft.value, draft.facts, dict(draft.lookups))
    verdict, reason = "deliver", ""
    if lacking and spec.on_missing != "flag":
        verdict, reason = spec.on_missing, f"required and absent: {', '.join(lacking)}"
    elif not fits:
        verdict = "park" if spec.on_missing == "flag" else spec.on_missing
        more = "more than " if made.total > made.most else ""
        reason = f"what is required has {more}{made.total} tokens; the budget leaves {room}"
    elif draft.cut and spec.on_overflow != "cut":
        verdict, reason = spec.on_overflow, f"cut: {', '.join(draft.cut[:MAX_NAMED_CUTS])}"
    return Curated(
        context=made.context,
        tokens=made.total,
        raw_tokens=made.raw,
        digest=sha256(b"\0".join([made.context, *(text for _, text in made.siblings)])).hexdigest(),
        left_out=(*made.notes(draft), *draft.cut),
        siblings=made.siblings,
        missing=tuple(draft.missing),
        verdict=verdict,
        reason=reason,
    )
