"""Fuzzes what ingest reads of strangers, by the clock.

    NBTEST_FUZZ_SECONDS=3600 python -m tests.fuzz.schemes

Every property of `tests/ingest/test_fuzz.py` takes turns over the schemes and their providers until the time is up, with new
examples at each turn.  A finding is printed with its smallest example and the rest goes on; the exit code is 1
where there was one.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.catalogue import catalogue
from tests.ingest import test_fuzz
from tests.ingest.drawn import TALLY

EVERY_S = 60.0
Turn = tuple[str, str, Callable[..., None]]


def turns() -> dict[str, list[Turn]]:
    """Each property with each provider that it takes, by the provider's scheme; those that take none by `any`."""
    found: dict[str, list[Turn]] = defaultdict(list)
    for name, test in vars(test_fuzz).items():
        if name.startswith("test_"):
            for provider in _providers(test):
                found[catalogue()[provider].file.verify[0].scheme if provider else "any"].append((name, provider, test))
    return found


def _providers(test: Any) -> Iterator[str]:
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    yield from marks[0].args[1] if marks else ("",)


def fuzzed(seconds: float) -> list[str]:
    """The findings of that many seconds, printed as they come; every scheme gets the same share of the time."""
    found: dict[str, str] = {}
    spent_s: Counter[str] = Counter()
    started = said = time.monotonic()
    by_scheme = turns()
    while (now := time.monotonic()) - started < seconds:
        if now - said >= EVERY_S:
            said = now
            print(f"{now - started:7.0f} s  {sum(TALLY.values()):,} examples  {len(found)} findings", flush=True)
        scheme = min(by_scheme, key=lambda one: spent_s[one])
        name, provider, test = random.choice(by_scheme[scheme])
        try:
            test(**({"name": provider} if provider else {}))
        except (Exception, pytest.fail.Exception) as exc:
            if f"{name}[{provider}]" not in found:
                print(f"\nFINDING {name}[{provider}]\n{''.join(traceback.format_exception(exc))[-3000:]}\n", flush=True)
            found.setdefault(f"{name}[{provider}]", str(exc))
        spent_s[scheme] += time.monotonic() - now
    return list(found)


def report(seconds: float, found: list[str]) -> str:
    """What was tried, by scheme, and what came of it."""
    lines = [f"{seconds:.0f} s, {sum(TALLY.values()):,} examples, {len(found)} findings"]
    for scheme in sorted({scheme for scheme, _ in TALLY}):
        outcomes = Counter({outcome: count for (of, outcome), count in TALLY.items() if of == scheme})
        listed = ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common())
        lines.append(f"{scheme}: {outcomes.total():,} ({listed})")
    return "\n".join([*lines, *(f"finding: {name}" for name in found)])


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # the multipart reader says of each bad body what is wrong with it
    wanted = float(os.environ.get("NBTEST_FUZZ_SECONDS", "3600"))
    findings = fuzzed(wanted)
    print(report(wanted, findings))
    sys.exit(bool(findings))
