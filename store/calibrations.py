"""What agents' reports taught about token counts, by model family: one row each, with its last samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from store.engine import Call, Engine, Put, Script, fetch
from store.prepared import Bulk, Prepared
from store.tables import calibrations

MOST_SAMPLES = 64
MOST_FAMILIES = 64
_COLUMNS = ("family", "version", "factor_permille", "samples", "updated_ms")
_ALL = Prepared(
    select(*(calibrations.c[name] for name in _COLUMNS)).where(calibrations.c.team == bindparam("team_")).order_by("family"),
    "team_",
)
_ONE = Prepared(
    select(calibrations.c.version, calibrations.c.factor_permille).where(
        calibrations.c.team == bindparam("team_"), calibrations.c.family == bindparam("family_")
    ),
    "team_",
    "family_",
)
_PUT = Bulk(
    calibrations,
    "team",
    *_COLUMNS,
    then="ON CONFLICT (team, family) DO UPDATE SET version = excluded.version, factor_permille = excluded.factor_permille, "
    "samples = excluded.samples, updated_ms = excluded.updated_ms",
)
SampleRow = tuple[int, int, bool]  # what we counted, what the provider did, whether of the same text


@dataclass(frozen=True, slots=True)
class Lesson:
    """One sample, and the pure function that says what the samples of a family teach: a factor in thousandths, 0 for none."""

    family: str
    sample: SampleRow
    judge: Callable[[str, Sequence[SampleRow]], int]


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """A family's factor in thousandths (0: its default); `version` rises when that changes."""

    family: str
    version: int
    factor_permille: int
    samples: int
    updated_ms: int


def learnt(team: str, lesson: Lesson, now_ms: int) -> Script[None]:
    """Part of a script: keep a sample, the oldest out, and what they teach now."""
    rows = {row[0]: row for row in (yield Call(_ALL, (team,)))}
    if lesson.family not in rows and len(rows) >= MOST_FAMILIES:
        return
    _, version, factor, text, _ = rows.get(lesson.family, ("", 0, 0, "[]", 0))
    samples = [*json.loads(text), list(lesson.sample)][-MOST_SAMPLES:]
    now = lesson.judge(lesson.family, [(counted, reported, bool(exact)) for counted, reported, exact in samples])
    row = (team, lesson.family, version + (now != factor), now, json.dumps(samples, separators=(",", ":")), now_ms)
    yield Put(_PUT, [row])


async def calibration_of(engine: Engine, team: str, family: str) -> tuple[int, int]:
    """(version, factor in thousandths) of a family; zeros where nothing was learnt."""
    rows = await fetch(engine, _ONE, team, family)
    return (rows[0][0], rows[0][1]) if rows else (0, 0)


async def calibrations_of(engine: Engine, team: str) -> list[CalibrationRow]:
    """What a team's agents taught, by family."""
    rows = await fetch(engine, _ALL, team)
    return [CalibrationRow(family, version, factor, len(json.loads(text)), at) for family, version, factor, text, at in rows]
