"""What each broken build leaves out; patched from outside, so that no line of it is in the product."""

from __future__ import annotations

import asyncio
from dataclasses import replace


def acknowledge_before_durable() -> None:
    """The append answers at once and writes half a second later."""
    from eventlog.sql import SqlLog

    append = SqlLog.append
    waiting: list = []

    async def early(self, drafts):
        async def later():
            await asyncio.sleep(0.5)
            await append(self, drafts)

        task = asyncio.get_running_loop().create_task(later())
        waiting.append(task)
        task.add_done_callback(waiting.remove)
        return []

    SqlLog.append = early


def cursor_before_rows() -> None:
    """The router's cursor is durable before what it stands for."""
    from schemas.errors import FencedOut
    from store.admission import Admission

    admit = Admission.admit

    async def split(self, log_id, place, *, first, after, plans, now_ms, openings, begins):
        if (await self.cursors(log_id, [place])).get(place, first) != first:
            raise FencedOut
        await admit(self, log_id, place, first=first, after=after, plans=[], now_ms=now_ms, begins=begins)
        await asyncio.sleep(0.3)
        return await self._engine.write(lambda: self._keep(place, plans, now_ms, openings))

    Admission.admit = split


def retries_in_memory() -> None:
    """An invocation that must be tried again is called done in the ledger, and lives on in a timer."""
    from schemas.invocation import State
    from store.ledger import Ledger

    settle = Ledger.settle
    timers: list = []

    async def forgetful(self, settlement):
        if settlement.state is not State.WAITING:
            return await settle(self, settlement)

        async def later():
            await asyncio.sleep(1.0)

        timers.append(asyncio.get_running_loop().create_task(later()))
        return await settle(self, replace(settlement, state=State.DONE, reason="a timer has it"))

    Ledger.settle = forgetful


def dedup_in_memory() -> None:
    """What was delivered before is known only as long as the process lives; then it is news."""
    from store import admission

    keep = admission.Admission._keep
    met: set[str] = set()

    def kept(self, place, plans, *more):
        result = yield from keep(self, place, plans, *more)
        met.update(plan.event.id for plan in plans)
        return result

    def forgotten(identities, new, now_ms):
        yield from ()
        return set(identities) - new - met

    admission.Admission._keep = kept
    admission._expired = forgotten


def lanes_off() -> None:
    """Every invocation is its own lane, whatever its subscription asks for."""
    from router import service

    plan = service.plan

    def planned(*args, **more):
        made = plan(*args, **more)
        return replace(made, invocations=tuple(replace(each, lane=each.id) for each in made.invocations))

    service.plan = planned


def acks_one() -> None:
    """The leader alone acknowledges."""
    from eventlog import kafka

    make = kafka.AIOKafkaProducer

    def hasty(**options):
        return make(**options | {"acks": 1, "enable_idempotence": False})

    kafka.AIOKafkaProducer = hasty


def producer_kept() -> None:
    """A producer that failed goes on, with a sequence number spent on a batch that the broker never saw."""
    from eventlog.kafka import KafkaLog

    KafkaLog._retire = lambda self, producer, reason: None


def epoch_not_checked() -> None:
    """Attempts are recorded for whoever has made them."""
    from store import moves

    class Every:
        __hash__ = object.__hash__

        def __eq__(self, other):
            return True

        def get(self, _shard):
            return self

    def epochs(_wanted):
        yield from ()
        return Every()

    moves.epochs_of = epochs


BREAKS = {
    made.__name__: made
    for made in (
        acknowledge_before_durable, cursor_before_rows, retries_in_memory, dedup_in_memory, lanes_off, acks_one, producer_kept,
        epoch_not_checked,
    )
}  # fmt: skip
