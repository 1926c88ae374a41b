"""The audit's chain: whatever is done to a kept line shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import update

from store.audit import Act, AuditLine, audit_page, break_in, keep_act, verify_audit
from store.engine import Call, Engine
from store.prepared import Prepared
from store.tables import audit

NOW = 1_800_000_000_000


async def chain(engine: Engine, number: int = 5) -> list[AuditLine]:
    for n in range(number):
        await keep_act(engine, Act("default", "nora", "apply", f"object/{n}", "detail"), at_ms=NOW + n)
    return (await audit_page(engine, "default", before=1 << 60, limit=100))[::-1]


async def test_a_chain_that_nobody_touched_is_whole(engine: Engine) -> None:
    lines = await chain(engine)

    verdict = await verify_audit(engine, "default")

    assert (verdict.lines, verdict.broken_at, verdict.head) == (5, 0, lines[-1].hash)


@pytest.mark.parametrize("mutation", ["edit", "delete", "insert", "swap", "clock"])
async def test_a_chain_that_was_tampered_with_breaks(engine: Engine, mutation: str) -> None:
    lines = await chain(engine)

    tampered = {
        "edit": [*lines[:2], replace(lines[2], actor="eve"), *lines[3:]],
        "delete": [*lines[:2], *lines[3:]],
        "insert": [*lines[:2], replace(lines[2], seq=99), *lines[2:]],
        "swap": [*lines[:2], lines[3], lines[2], lines[4]],
        "clock": [*lines[:2], replace(lines[2], at_ms=NOW - 1), *lines[3:]],
    }[mutation]

    assert break_in(lines) is None
    assert break_in(tampered) is not None


async def test_a_cut_tail_shows_against_a_head_that_was_kept_elsewhere(engine: Engine) -> None:
    lines = await chain(engine)

    assert break_in(lines[:-1]) is None
    assert lines[-2].hash != lines[-1].hash == (await verify_audit(engine, "default")).head


async def test_an_edit_in_the_store_is_found(engine: Engine) -> None:
    lines = await chain(engine)
    edit = Prepared(update(audit).where(audit.c.seq == lines[1].seq).values(detail="nothing happened"))

    def script():
        yield Call(edit)

    await engine.write(script)

    assert (await verify_audit(engine, "default")).broken_at == lines[1].seq


async def test_lines_written_at_once_form_one_chain(engine: Engine) -> None:
    await chain(engine, 1)
    acts = [Act("default", f"a{n}", "apply", "x") for n in range(20)]

    await asyncio.gather(*(keep_act(engine, act, at_ms=NOW) for act in acts))

    verdict = await verify_audit(engine, "default")
    assert (verdict.lines, verdict.broken_at) == (21, 0)


async def test_each_team_has_a_chain_of_its_own(engine: Engine) -> None:
    await chain(engine, 2)
    await keep_act(engine, Act("others", "x", "apply", "y"), at_ms=NOW)

    assert (await verify_audit(engine, "default")).lines == 2
    assert (await verify_audit(engine, "others")).lines == 1
