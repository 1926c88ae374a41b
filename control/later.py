"""What the steps after matching decided of an event for a subscription: duplicate, paused, disabled, expired, superseded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from schemas.config import SubscriptionState
from schemas.event import Flag
from schemas.invocation import State
from schemas.outcomes import OWN
from store.events import EventRow
from store.folding import Fold
from store.subscriptions import SubscriptionRow
from store.work import InvocationRow

Later = tuple[str, str]  # the step, and what it decided

_ENDED = frozenset({State.EXPIRED, State.SUPERSEDED, State.CANCELED, State.BURIED, State.DECLINED})


def later_of(
    event: EventRow, subscription: SubscriptionRow, invocations: Sequence[InvocationRow], folds: Sequence[Fold]
) -> list[Later]:
    """The later steps' verdicts for one subscription, of all invocations and folds of the event."""
    mine = [found for found in invocations if found.subscription_uid == subscription.uid]
    folded = [fold for fold in folds if fold.subscription_uid == subscription.uid]
    return [
        *(
            (found.state, f"{found.id}: {found.reason}" if found.reason else found.id)
            for found in mine
            if found.state in _ENDED
        ),
        *_own(event, subscription),
        *(("late", late_by(fold.stale)) if fold.stale else ("duplicate", duplicate_of(fold)) for fold in folded),
        *_standing(subscription),
        *([] if mine or folded else _too_new(event, subscription)),
    ]


def duplicate_of(fold: Fold) -> str:
    """Whose duplicate it is, in a sentence."""
    whose = f" of {fold.of_event}" if fold.of_event else ""
    replay = f" in replay {fold.replay_id}" if fold.replay_id else ""
    return f"duplicate of {fold.invocation_id}{whose}{replay}: its dedup key was equal within the window"


def _own(event: EventRow, subscription: SubscriptionRow) -> Iterator[Later]:
    if event.provider != OWN:
        return
    if not subscription.config.spec.hears_outcomes:
        yield "unheard", "outcomes wake only subscriptions whose rule names nightbell, in a type, a source or a provider"
    elif Flag.LOOP_CUT in event.flags.split(","):
        yield "loop_cut", "the loop guard cut the chain here: too many outcomes followed one event"


def late_by(stale: str) -> str:
    """Why an event was late, in a sentence."""
    why = json.loads(stale)
    return f"its {why['by']} {why['this']} is older than {why['seen']} of {why['event']}"


def _standing(subscription: SubscriptionRow) -> Iterator[Later]:
    if subscription.state == SubscriptionState.PAUSED:
        yield "paused", "the subscription is paused: what matches is queued, and waits until it is live"
    if subscription.state == SubscriptionState.DISABLED:
        yield "disabled", subscription.disabled_reason or "the subscription is disabled: nothing is planned for it"


def _too_new(event: EventRow, subscription: SubscriptionRow) -> Iterator[Later]:
    if subscription.created_ms > event.admitted_ms:
        yield "unplanned", "the subscription was made after the event was admitted: a replay plans it"
    elif subscription.updated_ms > event.admitted_ms:
        yield "unplanned", "the subscription was changed after the event was admitted: a replay plans it"
