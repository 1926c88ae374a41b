"""The table of default views in docs/context.md, made from the views themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from curator.curate import without_empty
from curator.generic import pruned
from curator.tokens import default_counter
from curator.view import compile_view
from curator.views import DefaultView, catalogue

BEGIN = "<!-- made by `python -m curator.viewtable docs/context.md`: begin -->"
END = "<!-- end -->"
MAX_SHOWN_TYPES = 6


def table() -> str:
    """One row a vendor: its views, their types, the declared facts, and tokens of the examples whole, pruned and viewed.

    The examples are shortened to what a view reads, so the three figures say that no fact costs much; what views save on whole
    bodies stands in the text above the table.
    """
    rows = [
        "| vendor | types | views | facts | tokens of the examples: whole | generic | viewed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows.extend(_row(name, list(group)) for name, group in groupby(catalogue(), key=lambda each: each.families[0]))
    return "\n".join(rows)


def _row(name: str, views: list[DefaultView]) -> str:
    kinds = [kind for each in views for kind in each.types if not kind.endswith("*")]
    named = ", ".join(f"`{kind}`" for kind in kinds[:MAX_SHOWN_TYPES])
    more = f" and {len(kinds) - MAX_SHOWN_TYPES} more" if len(kinds) > MAX_SHOWN_TYPES else ""
    facts = sum(len(each.facts) for each in views)
    whole = sum(_tokens(each.example) for each in views)
    generic = sum(_tokens(pruned(each.example)[0]) for each in views)
    viewed = sum(_tokens(_output(each)) for each in views)
    shown = f"{named}{more}" if named else "any"
    return f"| {name} | {shown} | {len(views)} | {facts} | {whole} | {generic} | {viewed} |"


def _output(each: DefaultView) -> Any:
    return without_empty(compile_view(each.view).of({"type": "", "actor": "", "data": each.example}))


def _tokens(value: Any) -> int:
    return default_counter().count(orjson.dumps(value).decode())


def with_table(text: str) -> str:
    """`text` with today's table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def examples() -> Iterator[tuple[str, str]]:
    """(type, body) of every example: for benches and demonstrations."""
    for each in catalogue():
        kind = next((kind for kind in each.types if "*" not in kind), "any")
        yield f"{each.families[0]}.{kind}", json.dumps(each.example)


def main(paths: Iterable[str]) -> None:
    """Rewrite the table in each file."""
    for path in map(Path, paths):
        path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
