"""docs/context.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
import yaml

from curator import generic
from curator.budget import PROSE_CHARS
from curator.contract import contract_of
from curator.curate import DEFAULT_MAX_TOKENS, curate
from curator.lookups import BREAK_AFTER, BREAK_MS
from curator.view import MAX_COPIES
from curator.viewtable import examples, main, with_table
from schemas.config import ContextSpec
from tests.curator.conftest import make_event

PAGE = Path(__file__).parents[2] / "docs" / "context.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_of_views_is_current():
    assert with_table(TEXT) == TEXT


def test_the_page_is_rewritten_in_place(tmp_path):
    stale = tmp_path / "context.md"
    stale.write_text(re.sub(r"(?m)^\| github \|.*\n", "", TEXT), encoding="utf-8")

    main([str(stale)])

    assert stale.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_each_documented_contract_is_one_that_would_be_saved(block):
    contract_of(ContextSpec(**yaml.safe_load(block)["context"]))


def test_every_field_of_the_contract_is_in_its_table():
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT.split("## What stands")[0], re.MULTILINE)) == set(ContextSpec.model_fields)


def test_the_figures_of_the_page_are_those_of_the_code():
    for figure in (
        f"| {DEFAULT_MAX_TOKENS} |", f"more than {MAX_COPIES} times", f"more than {PROSE_CHARS} characters",
        f"cut at {generic.MAX_TEXT_CHARS} characters, lists at {generic.MAX_ITEMS} items, objects at {generic.MAX_FIELDS} fields",
        f"in peace for {BREAK_MS // 1000} s",
    ):  # fmt: skip
        assert figure in TEXT
    assert BREAK_AFTER == 5


@pytest.mark.parametrize(("kind", "body"), list(examples()), ids=lambda value: value if len(value) < 60 else "")
def test_each_example_is_curated_to_no_more_than_itself(kind, body):
    found = curate(make_event(type=kind, body=body.encode()), orjson.loads(body), view=None, max_tokens=None, exact_raw=True)

    assert orjson.loads(found.context)
    assert found.tokens <= found.raw_tokens * 1.1 + 10
