"""The router's stores in memory: cursors by compare-and-set, events seen once, deaths counted."""

from __future__ import annotations

from collections import Counter

from schemas.config import SubscriptionConfig, SubscriptionSpec
from schemas.errors import FencedOut, StoreUnavailable
from schemas.invocation import Admitted
from schemas.topics import Place


class Rules:
    def __init__(self, *specs: SubscriptionSpec) -> None:
        self.number = 1
        self.configs = [SubscriptionConfig("default", f"sub-{i}", f"uid-{i}", 1, spec) for i, spec in enumerate(specs)]
        self.broken = False

    async def version(self) -> int:
        if self.broken:
            raise StoreUnavailable
        return self.number

    async def subscriptions(self) -> list[SubscriptionConfig]:
        return list(self.configs)


class Admissions:
    def __init__(self) -> None:
        self.positions: dict = {}
        self.seen: dict[str, int] = {}
        self.admitted: list[Admitted] = []
        self.died: Counter = Counter()
        self.aside: list = []
        self.fail_next = 0
        self.lanes: Counter = Counter()

    def _may_fail(self):
        if self.fail_next:
            self.fail_next -= 1
            raise StoreUnavailable

    async def cursors(self, log_id, places):
        self._may_fail()
        return {place: self.positions[place] for place in places if place in self.positions}

    async def admit(self, log_id, place, *, first, after, plans, now_ms, openings=None, begins=False):
        self._may_fail()
        self._move(place, first, after, begins)
        found = []
        for planned in plans:
            if planned.event.id in self.seen:
                continue
            self.seen[planned.event.id] = planned.position
            for invocation in planned.invocations:
                found.append(Admitted(invocation, planned.event, planned.data, self.lanes[invocation.lane]))
                self.lanes[invocation.lane] += 1
        self.admitted += found
        return found

    async def deaths(self, log_id, place, position, reason):
        self._may_fail()
        self.died[place, position] += 1
        return self.died[place, position]

    async def spare(self, log_id, place, position):
        self.died[place, position] -= 1

    async def set_aside(self, log_id, record, *, first, reason, now_ms, begins=False):
        self._may_fail()
        self._move(Place(record.topic, record.partition), first, record.position + 1, begins)
        self.aside.append((record.position, reason))

    def _move(self, place, first, after, begins):
        if self.positions.get(place, first if begins else 0) != first:
            raise FencedOut
        self.positions[place] = after
