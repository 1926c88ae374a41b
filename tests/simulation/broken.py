"""Builds that are broken on purpose: a simulation that passes one of them proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import router.service
from dispatcher.tenure import Turn
from schemas.errors import NightbellError, StoreUnavailable
from schemas.invocation import Admitted, Planned, State
from schemas.ledger import Lease, Opening, Settlement
from schemas.topics import Draft, Place
from store.engine import Script
from store.tables import NEVER_MS

if TYPE_CHECKING:
    from tests.simulation.process import Process

NO_FENCING = "no fencing"
RETRIES_IN_MEMORY = "retries in memory"
COMMIT_BEFORE_WRITE = "commit before write"
DEDUP_IN_MEMORY = "dedup only in memory"
LANES_OFF = "lanes off"
ACK_BEFORE_APPEND = "answer before append"
CALL_BEFORE_ROW = "call before the row"
BUILDS = {
    NO_FENCING: "the epoch is not checked, and a lease is believed for ever",
    RETRIES_IN_MEMORY: "only a timer knows when a retry is due",
    COMMIT_BEFORE_WRITE: "the cursor moves in a transaction before the rows'",
    DEDUP_IN_MEMORY: "what was seen is remembered by the process, and no row is unique",
    LANES_OFF: "each invocation is a lane of its own",
    ACK_BEFORE_APPEND: "2xx first, the log later",
    CALL_BEFORE_ROW: "the agent is called while the attempt's row is still being written",
}


@contextmanager
def broken_modules(how: str) -> Iterator[None]:
    """Break what is a function of a module."""
    if how == NO_FENCING:
        with mock.patch("store.moves.epochs_of", _any_epoch), mock.patch("store.admission.epochs_of", _any_epoch):
            yield
        return
    if how != LANES_OFF:
        yield
        return
    plan = router.service.plan

    def each_alone(*args: Any, **more: Any) -> Planned:
        found = plan(*args, **more)
        return replace(found, invocations=tuple(replace(each, lane=each.id) for each in found.invocations))

    with mock.patch.object(router.service, "plan", each_alone):
        yield


class _Anything:
    """An epoch that is as good as any other."""

    __hash__ = None  # type: ignore[assignment]  # nobody keeps it

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    def get(self, _: int) -> _Anything:
        """Today's epoch of any shard."""
        return self


def _any_epoch(_: set[int]) -> Script[Any]:
    yield from ()
    return _Anything()


def break_process(process: Process, how: str) -> None:
    """Break one process."""
    if how == NO_FENCING:
        _unfenced(process)
    elif how == RETRIES_IN_MEMORY:
        _forgetful(process)
    elif how == COMMIT_BEFORE_WRITE:
        _hasty(process)
    elif how == DEDUP_IN_MEMORY:
        _unseen(process)
    elif how == ACK_BEFORE_APPEND:
        _rash(process)
    elif how == CALL_BEFORE_ROW:
        _unwritten(process)


def _unfenced(process: Process) -> None:
    if process.dispatcher is None:
        return
    tenure = process.dispatcher._tenure
    renewed = tenure.renewed

    def renewed_for_ever(leases: Sequence[Lease], *, asked_at_s: float) -> Turn:
        before = dict(tenure.epochs)
        turn = renewed(leases, asked_at_s=asked_at_s)
        tenure.epochs = before | tenure.epochs
        return Turn(turn.gained, frozenset())

    tenure.renewed = renewed_for_ever  # type: ignore[method-assign]
    tenure.remaining_s = lambda: 1e9 if tenure.epochs else 0.0  # type: ignore[method-assign]


def _forgetful(process: Process) -> None:
    settled = process.ledger.settle

    async def settle_it(settlement: Settlement) -> bool:
        if settlement.state is not State.WAITING or settlement.reason != "retry":
            return await settled(settlement)
        done = await settled(replace(settlement, due_ms=NEVER_MS))
        if done:
            process.spawn(_timer(process, settlement))
        return done

    process.ledger.settle = settle_it  # type: ignore[method-assign]


async def _timer(process: Process, settlement: Settlement) -> None:
    await asyncio.sleep(max(0.0, (settlement.due_ms - process.clock.now_ms()) / 1000))
    await process.line.step("timer")
    connection = process.world.database.connection
    connection.execute("UPDATE lanes SET due_ms = ?, hold = '' WHERE id = ?", (settlement.due_ms, settlement.lane))
    connection.execute(
        "UPDATE invocations SET due_ms = ? WHERE id = ? AND ended_ms = 0", (settlement.due_ms, settlement.invocation_id)
    )
    if process.dispatcher is not None:
        process.dispatcher.wake()


def _hasty(process: Process) -> None:
    admit = process.admission.admit

    async def admit_it(log_id: str, place: Place, *, plans: Sequence[Planned], now_ms: int, **more: Any) -> list[Admitted]:
        openings = more.pop("openings", {})
        await admit(log_id, place, plans=[], now_ms=now_ms, **more)
        for _ in range(4):
            await process.line.step("between")
        # The rows follow in a transaction that moves nothing, and is tried for as long as the process lives.
        while True:
            try:
                return await process.engine.write(lambda: process.admission._keep(place, plans, now_ms, openings))
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    process.admission.admit = admit_it  # type: ignore[method-assign]


def _unseen(process: Process) -> None:
    admit, known = process.admission.admit, set[str]()

    async def admit_it(log_id: str, place: Place, **more: Any) -> list[Admitted]:
        fresh = [plan for plan in more["plans"] if plan.event.id not in known]
        connection = process.world.database.connection
        connection.executemany("DELETE FROM seen WHERE event_id = ?", [(plan.event.id,) for plan in fresh])
        found = await admit(log_id, place, **more | {"plans": fresh})
        known.update(plan.event.id for plan in fresh)
        return found

    process.admission.admit = admit_it  # type: ignore[method-assign]


def _rash(process: Process) -> None:
    append = process.log.append

    async def append_later(drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        async def later() -> None:
            with suppress(NightbellError):
                await append(drafts)

        process.spawn(later())
        return []

    process.log.append = append_later  # type: ignore[method-assign]


def _unwritten(process: Process) -> None:
    opened = process.ledger.open

    async def open_later(opening: Opening) -> bool:
        async def later() -> None:
            with suppress(NightbellError):
                await opened(opening)

        process.spawn(later())
        return True

    process.ledger.open = open_later  # type: ignore[method-assign]
