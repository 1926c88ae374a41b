"""The generated documents are those of the code, and `make docs` mends one that is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curator import viewtable
from docs.generate import PAGES, ROOT, outdated


def test_every_generated_document_is_current():
    assert list(outdated(ROOT)) == [], "run `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_a_document_that_is_not_current_is_found(name: str, tmp_path: Path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    page = tmp_path / name
    current = page.read_text()
    mark = viewtable.END if viewtable.END in current else "\n"
    page.write_text(current.replace(mark, "old" + mark, 1))

    assert outdated(tmp_path)[name] == PAGES[name](current)


def test_the_api_is_described_for_the_default_address():
    document = json.loads((ROOT / "docs/openapi.json").read_text())

    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "http://127.0.0.1:8081"}]
