"""Writes the generated documents anew: `python -m docs.generate` (`make docs`).

Each comes from the code that it describes; `tests/flow/test_documents.py` fails where one is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from control.configschema import config_schema_text
from control.openapi import openapi_document
from curator import viewtable
from ingest import docs as providers
from ingest.catalogue import catalogue
from runtime.health import nightbell_version
from runtime.settings_table import settings_page

ROOT = Path(__file__).parents[1]
DEFAULT_API = "http://127.0.0.1:8081"

Page = Callable[[str], str]
"""A page's new text, from the one that is there; most need none."""

PAGES: Mapping[str, Page] = {
    "docs/settings.md": lambda _: settings_page(),
    "docs/nightbell.schema.json": lambda _: config_schema_text(),
    providers.TABLE: lambda _: providers.table(catalogue()),
    providers.SCHEMA: lambda _: providers.schema(),
    "docs/openapi.json": lambda _: _openapi(),
    "docs/context.md": viewtable.with_table,
}


def _openapi() -> str:
    document = openapi_document(nightbell_version(), server=DEFAULT_API)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def outdated(root: Path) -> dict[str, str]:
    """The pages below `root` that are not current, each with its new text."""
    found: dict[str, str] = {}
    for name, page in PAGES.items():
        path = root / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = page(before)
        if after != before:
            found[name] = after
    return found


def main() -> None:
    """Write what is not current, and say so."""
    for name, text in outdated(ROOT).items():
        (ROOT / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
