"""The life of a supervised run, as a table: what each call of an agent means in each phase, whenever it comes.

    calling ──► live ──► ended          calling: the agent is being called, and has not answered
       │         │  │      ▲            live:    it accepted, or reported before its answer was written down
       │         │  └► parked           between: its attempt came to no good end (no answer, stalled, failed); none follows yet
       ▼         ▼         ▲            parked:  it waits for a person
     between ──► (the next attempt: calling)

The table is total: any call may come in any phase, twice or late, and an attempt that another has taken over changes nothing.
"""

from __future__ import annotations

from enum import StrEnum

from schemas.invocation import END_STATES, State, Wait

ACCEPTED = "accepted"  # the reason of an invocation that is done because its agent answered 202, where nobody watches its runs
OFFERED = "offered"  # the reason of an accepted invocation whose pull agent has not fetched it yet
STALLED, CANCELED, UNFETCHED, STOPPED = "stalled", "canceled", "unfetched", "stopped"  # verdicts that no agent gives
UNANSWERED = frozenset({"unknown", "timeout", "unreachable"})  # attempts whose call tells nothing about a run that lives
CANCEL, SUPERSEDE = "cancel", "supersede"  # what a heartbeat's answer may carry


class Phase(StrEnum):
    """Where a run is, as seen by the attempt that calls."""

    NONE = "none"  # no attempt was made, or its offer was not fetched
    CALLING = "calling"
    LIVE = "live"
    BETWEEN = "between"
    PARKED = "parked"
    UNWATCHED = "unwatched"  # done by a 202 of an agent whose runs nobody watches: it may still tell how it ended
    ENDED = "ended"
    TAKEN_OVER = "taken_over"  # a later attempt has begun


class Said(StrEnum):
    """What an agent says of its run."""

    HEARTBEAT = "heartbeat"
    CHECKPOINT = "checkpoint"
    STATUS = "status"
    COMPLETE = "complete"
    FAIL = "fail"


class Effect(StrEnum):
    """What a call does."""

    BEGIN = "begin"  # the call proves that the agent accepted: the run lives from now on, and the call is kept as in `live`
    KEEP = "keep"
    END = "end"
    REPEAT = "repeat"  # nothing, where it says what was said before; else it is refused
    STOP = "stop"  # nothing; the answer says that the run is of no use any more
    REFUSE = "refuse"


_B, _K, _E, _R, _S, _X = Effect.BEGIN, Effect.KEEP, Effect.END, Effect.REPEAT, Effect.STOP, Effect.REFUSE
_TABLE: dict[Phase, tuple[Effect, Effect, Effect, Effect, Effect]] = {
    # phase            heartbeat checkpoint status complete fail
    Phase.NONE:       (_S,       _X,        _X,    _X,      _X),
    Phase.CALLING:    (_B,       _B,        _B,    _E,      _E),
    Phase.LIVE:       (_K,       _K,        _K,    _E,      _E),
    Phase.BETWEEN:    (_S,       _K,        _K,    _E,      _E),
    Phase.PARKED:     (_S,       _K,        _K,    _E,      _R),
    Phase.UNWATCHED:  (_K,       _X,        _K,    _E,      _E),
    Phase.ENDED:      (_S,       _X,        _X,    _R,      _R),
    Phase.TAKEN_OVER: (_S,       _X,        _X,    _X,      _X),
}  # fmt: skip


def effect_of(phase: Phase, said: Said) -> Effect:
    """What a call does in a phase."""
    return _TABLE[phase][list(Said).index(said)]


def phase_of(state: State, reason: str, *, attempts: int, number: int) -> Phase:
    """The phase of an invocation for the caller of attempt `number`; 0: a key of the agent, which speaks for the last one."""
    if attempts == 0 or (state is State.ACCEPTED and reason == OFFERED):
        return Phase.ENDED if state in END_STATES else Phase.NONE
    if number and number != attempts:
        return Phase.TAKEN_OVER
    if state is State.RUNNING:
        return Phase.CALLING
    if state is State.ACCEPTED:
        return Phase.LIVE
    if state in END_STATES:
        return Phase.UNWATCHED if state is State.DONE and reason == ACCEPTED else Phase.ENDED
    return Phase.PARKED if reason == Wait.HUMAN else Phase.BETWEEN
