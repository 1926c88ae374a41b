"""This process's picture of its lanes: what runs, what stands behind it in memory, and where the ledger knows more.

The ledger is the truth about order; memory is a hand-over that saves reading it back.  The picture may therefore forget a lane
at any time and may never guess.  It takes an offered invocation only where nothing can stand between it and what it holds
already; everything else it leaves in the ledger and remembers that there is `more`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.invocation import Admitted, Invocation
from schemas.ledger import Head

AgentKey = tuple[str, str]  # team, agent; of an agent that is spread over shards: the name of its part
Part = tuple[str, str, int]  # team, agent, shard


class Placed(StrEnum):
    """What became of an offered invocation."""

    READY = "ready"  # first of its lane: may start as soon as its agent has room
    BEHIND = "behind"  # in memory, behind others of its lane
    LEFT = "left"  # in the ledger only


@dataclass(slots=True, eq=False)
class Lane:
    """One lane in memory.  The first of `heads` is the one that runs while `busy`."""

    key: str
    heads: deque[Head] = field(default_factory=deque)
    busy: bool = False
    more: bool = False  # the ledger has invocations of this lane behind those in memory


@dataclass(slots=True, eq=False)
class Queue:
    """The lanes of one agent."""

    key: AgentKey
    shard: int
    ready: deque[Lane] = field(default_factory=deque)
    lanes: dict[str, Lane] = field(default_factory=dict)
    running: int = 0
    count: int = 0  # invocations in memory, running ones included
    bytes: int = 0
    more: bool = False  # the ledger may have due lanes of this agent that are not in memory
    dropped: bool = False  # its shard went to another process; what still runs here no longer counts


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the hand-over in memory may hold, over all agents; each agent gets its share of it."""

    max_count: int = 1024
    max_bytes: int = 64 * 1024 * 1024
    min_share: int = 8


class Picture:
    """All lanes of this process, by agent."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        """Start with nothing in memory."""
        self.bounds = bounds or Bounds()
        self.queues: dict[AgentKey, Queue] = {}
        self.count = 0
        self.bytes = 0
        self.active = 0  # agents with anything in memory
        self.parts: Mapping[Part, AgentKey] = {}  # of agents that are spread over shards

    def queue(self, key: AgentKey, shard: int) -> Queue:
        """The queue of an agent, made at its first use."""
        found = self.queues.get(key)
        if found is None:
            found = self.queues[key] = Queue(key, shard)
        return found

    def key_of(self, invocation: Invocation) -> AgentKey:
        """Whose queue has this invocation."""
        key = (invocation.team, invocation.agent)
        return key if not self.parts else self.parts.get((*key, invocation.shard), key)

    @property
    def is_full(self) -> bool:
        """Whether the whole hand-over is at its bound: the stage before is slowed."""
        return self.count >= self.bounds.max_count or self.bytes >= self.bounds.max_bytes

    def has_room(self, queue: Queue) -> bool:
        """Whether this agent may have one more invocation in memory: its share, so that a slow agent fills only its own."""
        if self.bytes >= self.bounds.max_bytes:
            return False
        share = max(self.bounds.min_share, self.bounds.max_count // max(1, self.active))
        return queue.count < share

    def offer(self, admitted: Admitted) -> Placed:
        """Place an invocation that was just admitted.

        `ahead` counts what the ledger had unfinished before it.  Where memory holds at least as many of this lane, and has
        missed none, the newcomer is the next one (memory may be behind the ledger by what is settling now, never ahead of it).
        """
        invocation = admitted.invocation
        queue = self.queue(self.key_of(invocation), invocation.shard)
        lane = queue.lanes.get(invocation.lane)
        if lane is None:
            if admitted.ahead or not self.has_room(queue):
                # With some ahead that memory does not know, the lane waits in the ledger, or its last one settled a moment ago.
                queue.more = True
                return Placed.LEFT
        elif lane.more or admitted.ahead > len(lane.heads) or not self.has_room(queue):
            lane.more = True
            return Placed.LEFT
        elif lane.heads[-1].invocation.id == invocation.id:
            return Placed.BEHIND  # read from the ledger before its own offer came round
        head = Head(invocation, admitted.event, 0, 0, data=admitted.data, has_data=True)
        return self._placed(queue, lane, head)

    def begun(self, admitted: Admitted) -> Head | None:
        """Place an invocation whose first attempt is open already: its lane runs from now on.  None where the lane is here."""
        invocation = admitted.invocation
        queue = self.queue(self.key_of(invocation), invocation.shard)
        if invocation.lane in queue.lanes:
            return None
        head = Head(invocation, admitted.event, 0, 0, data=admitted.data, has_data=True)
        self._placed(queue, None, head)
        queue.ready.pop().busy = True
        queue.running += 1
        return head

    def found(self, head: Head, *, more: bool) -> bool:
        """Place a lane's head that was read from the ledger; False where its lane is in memory already.

        `more` says whether the lane may go on behind it.
        """
        invocation = head.invocation
        queue = self.queue(self.key_of(invocation), invocation.shard)
        if invocation.lane in queue.lanes:
            return False
        self._placed(queue, None, head)
        queue.lanes[invocation.lane].more = more
        return True

    def _placed(self, queue: Queue, lane: Lane | None, head: Head) -> Placed:
        size = head.body_bytes if head.digest else len(head.event.body)
        if not queue.count:
            self.active += 1
        queue.count += 1
        queue.bytes += size
        self.count += 1
        self.bytes += size
        if lane is not None:
            lane.heads.append(head)
            return Placed.BEHIND
        lane = queue.lanes[head.invocation.lane] = Lane(head.invocation.lane, deque((head,)))
        queue.ready.append(lane)
        return Placed.READY

    def take(self, queue: Queue) -> Head | None:
        """The head of the next ready lane, which is busy from now on; None where none is ready."""
        if not queue.ready:
            return None
        lane = queue.ready.popleft()
        lane.busy = True
        queue.running += 1
        return lane.heads[0]

    def finished(self, queue: Queue, head: Head) -> bool:
        """Let the lane go on after its head came to an end.  True where its next one is in the ledger only.

        The lane then stays in memory, busy, so that nothing of it starts before `resume` or `forget`.
        """
        lane = queue.lanes[head.invocation.lane]
        self._forgot(queue, lane.heads.popleft())
        if lane.heads:
            self._ready(queue, lane)
            return False
        if lane.more:
            return True
        self._close(queue, lane)
        return False

    def has_behind(self, queue: Queue, key: str) -> bool:
        """Whether others of a lane stand behind its head, or may."""
        lane = queue.lanes.get(key)
        return lane is not None and (lane.more or len(lane.heads) > 1)

    def resume(self, queue: Queue, head: Head) -> None:
        """Go on with a lane that `finished` left busy: `head` was just read from the ledger."""
        lane = queue.lanes[head.invocation.lane]
        self._placed(queue, lane, head)
        self._ready(queue, lane)

    def forget(self, queue: Queue, key: str) -> None:
        """Drop a lane from memory, running or not: it waits, or another process has it; the ledger knows the rest."""
        lane = queue.lanes.get(key)
        if lane is None:
            return
        for head in lane.heads:
            self._forgot(queue, head)
        lane.heads.clear()
        if not lane.busy:
            queue.ready.remove(lane)
        self._close(queue, lane)

    def forget_ready(self, queue: Queue) -> None:
        """Drop every lane of an agent that does not run; what runs goes on, with nothing behind it in memory."""
        for lane in queue.ready:
            for head in lane.heads:
                self._forgot(queue, head)
            del queue.lanes[lane.key]
        queue.more = queue.more or bool(queue.ready)
        queue.ready.clear()
        for lane in queue.lanes.values():
            while len(lane.heads) > 1:
                self._forgot(queue, lane.heads.pop())
                lane.more = True

    def retain(self, shards: Iterable[int]) -> list[Queue]:
        """Drop the agents of all other shards, and return their queues: what runs in them is to be stopped."""
        kept = frozenset(shards)
        lost = [queue for queue in self.queues.values() if queue.shard not in kept]
        for queue in lost:
            self.count -= queue.count
            self.bytes -= queue.bytes
            self.active -= bool(queue.count)
            queue.dropped = True
            queue.ready.clear()
            del self.queues[queue.key]
        return lost

    def _ready(self, queue: Queue, lane: Lane) -> None:
        lane.busy = False
        queue.running -= 1
        if not queue.dropped:
            queue.ready.append(lane)

    def _close(self, queue: Queue, lane: Lane) -> None:
        if lane.busy:
            queue.running -= 1
        del queue.lanes[lane.key]

    def _forgot(self, queue: Queue, head: Head) -> None:
        size = head.body_bytes if head.digest else len(head.event.body)
        queue.count -= 1
        queue.bytes -= size
        if queue.dropped:
            return
        self.count -= 1
        self.bytes -= size
        if not queue.count:
            self.active -= 1
