"""What every database engine of the store promises, in terms of scripts that know no dialect.

A script is a generator function that yields steps and returns its result; it does no I/O of its own, asks no clock, and may be
run again from the start (after a deadlock, or when another script of its commit group failed).

    def rename(team: str, old: str, new: str) -> Script[bool]:
        rows = yield Call(_FIND, (team, old))
        if not rows:
            return False
        yield Change(_RENAME, (new, rows[0][0]))
        return True

    renamed = await engine.write(lambda: rename("default", "a", "b"))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from store.prepared import Bulk, Prepared

T = TypeVar("T")
Row = Sequence[Any]


class Call(NamedTuple):
    """Run a statement; gives its rows, each a sequence that unpacks (none for a statement without rows)."""

    prepared: Prepared
    params: tuple[Any, ...] = ()


class Change(NamedTuple):
    """Run a statement without rows; gives how many rows it changed."""

    prepared: Prepared
    params: tuple[Any, ...] = ()


class Each(NamedTuple):
    """Run a statement without rows once for each tuple of parameters; gives None."""

    prepared: Prepared
    params: Sequence[tuple[Any, ...]]


class Put(NamedTuple):
    """Insert many rows; gives None."""

    bulk: Bulk
    rows: Sequence[tuple[Any, ...]]


class AddNew(NamedTuple):
    """Insert many rows by a `Bulk` that returns columns; gives the rows that came back.

    With `on conflict do nothing returning key` these are the keys that were new.  Their order is that of the rows.
    """

    bulk: Bulk
    rows: Sequence[tuple[Any, ...]]


class Notify(NamedTuple):
    """Wake the listeners of a channel, in this process and others, once the script is committed; gives None."""

    channel: str
    payload: str = ""


Step: TypeAlias = Call | Change | Each | Put | AddNew | Notify
Script: TypeAlias = Generator[Step, Any, T]


class Engine(Protocol):
    """A database that runs scripts, each in a transaction of its own.

    Both `write` and `read` raise what the script raised, after undoing it; `StoreUnavailable` where the database cannot be
    reached or cannot write now; `Saturated` where too much waits already; `Conflict` where a unique key is there already.
    A cancelled caller does not undo its script: it may still be committed.
    """

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`: for displays, never to branch on outside the engine."""
        ...

    async def start(self) -> None:
        """Open; check what durability rests on.  Raises `BadSetting`, `StoreUnavailable`."""
        ...

    async def write(self, script: Callable[[], Script[T]], *, is_patient: bool = False) -> T:
        """Run a script; it is durable when this returns.

        A patient one lets others go before it where they wait for the same writer: new work for the end of what was begun.
        """
        ...

    async def read(self, script: Callable[[], Script[T]], *, needs_snapshot: bool = True) -> T:
        """Run a script that changes nothing, on one snapshot; where it needs none, each of its steps may see newer things."""
        ...

    def listen(self, channel: str, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` with the payload after each commit that notifies `channel`; gives the function that ends this.

        Wake-ups may come twice, and after a lost connection one comes with an empty payload: look, then believe.
        """
        ...

    async def healthy(self) -> bool:
        """Whether a write would be taken now, by a bounded look."""
        ...

    async def aclose(self) -> None:
        """Finish what is queued, and release everything."""
        ...


class OneStep:
    """The script that is just this step: to read by it no transaction need be opened."""

    __slots__ = ("step",)

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self) -> Script[Any]:
        """The script."""
        return (yield self.step)


async def fetch(engine: Engine, prepared: Prepared, *params: Any) -> list[Row]:
    """The rows of one reading statement."""
    rows: list[Row] = await engine.read(OneStep(Call(prepared, params)))
    return rows


async def change(engine: Engine, prepared: Prepared, *params: Any) -> int:
    """How many rows one statement changed, durably."""
    count: int = await engine.write(OneStep(Change(prepared, params)))
    return count


Runner: TypeAlias = Callable[[Callable[[], Script[T]]], Awaitable[T]]
