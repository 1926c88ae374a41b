"""What a report of usage says about our token counts: a sample for its model family."""

from __future__ import annotations

from collections.abc import Sequence

from control.asked import Usage
from control.desk import Desk
from curator.calibrate import Sample, factor_of
from curator.tokens import default_counter, family_of
from store.calibrations import Lesson, SampleRow
from store.sent import sent_of
from store.subscriptions import subscriptions_of
from store.work import InvocationRow


async def lesson_of(desk: Desk, row: InvocationRow, usage: Usage | None) -> Lesson | None:
    """The sample of one report; None where it teaches nothing: no model to count for, another one used, no bytes kept."""
    reported = usage and (usage.context_tokens or usage.input_tokens)
    if usage is None or not reported:
        return None
    subscription = (await subscriptions_of(desk.engine, row.team)).get(row.subscription)
    model = subscription.config.spec.context.model if subscription else None
    if not model or (usage.model and family_of(usage.model) != family_of(model)):
        return None
    sent = [each.body for each in await sent_of(desk.engine, row.seq) if each.body and each.body.size]
    if not sent:
        return None
    # As it is handed to a model: one object, without the envelope.
    counted = default_counter().count(f'{{"context":{sent[-1].context.decode()}}}')
    return Lesson(family_of(model), (counted, reported, usage.context_tokens is not None), judged)


def judged(family: str, rows: Sequence[SampleRow]) -> int:
    """The factor that samples teach, in thousandths; 0 where they teach none."""
    return round(1000 * (factor_of(family, [Sample(*row) for row in rows]) or 0))
