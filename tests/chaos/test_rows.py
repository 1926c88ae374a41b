"""The table of faults in docs/delivery.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.breaks import BREAKS

ROOT = Path(__file__).parents[2]
ROWS = {1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 25}


def test_every_row_names_a_test_that_exists():
    text = (ROOT / "docs" / "delivery.md").read_text()
    rows = {int(number) for number in re.findall(r"^\| T-(\d+) \|", text, re.MULTILINE)}
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)

    missing = [
        (path, name) for path, name in named if not (ROOT / path).exists() or f"def {name}" not in (ROOT / path).read_text()
    ]
    assert rows >= ROWS
    assert len(named) > 20
    assert missing == []


def test_every_broken_build_is_tried_by_a_test():
    tried = "".join(
        (ROOT / "tests" / "chaos" / name).read_text() for name in ("test_kill.py", "test_broken_cluster.py", "test_brokers.py")
    )

    assert [how for how in BREAKS if f'"{how}"' not in tried] == []
