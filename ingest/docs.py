"""What is generated from the catalogue (`python -m ingest.docs`): the table of providers, the JSON Schema of their files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from ingest.catalogue import Provider, catalogue, described
from ingest.fileform import ProviderFile
from ingest.kinds import KINDS

TABLE = "docs/providers.md"
SCHEMA = "docs/provider.schema.json"
_HEAD = """# Providers

Generated from `ingest/providers/` by `python -m ingest.docs`; do not edit.  `nightbell providers show NAME` has the steps on
the vendor's side.  How to add one: `ingest/providers/README.md`.

"""
_COLUMNS = ("provider", "name", "proof", "handshake", "redelivery known by", "vendor's order", "retries", "confirmed")


def table(providers: Mapping[str, Provider]) -> str:
    """`docs/providers.md`."""
    lines = [_row(_COLUMNS), _row(["---"] * len(_COLUMNS)), *(_row(_cells(provider)) for provider in providers.values())]
    families = len({provider.family for provider in providers.values()})
    count = f"{len(providers)} providers of {families} families.\n\n"
    kinds = ["\n## Kinds\n\nThe same fact over vendors: `kind` of an event.\n", _row(("kind", "says")), _row(("---", "---"))]
    kinds += [_row((f"`{name}`", says)) for name, says in KINDS.items()]
    return _HEAD + count + "\n".join([*lines, *kinds]) + "\n"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _cells(provider: Provider) -> list[str]:
    file = provider.file
    proofs = ", ".join(dict.fromkeys(described(check) for check in file.verify))
    page = file.docs.get("signature", "")
    link = page if isinstance(page, str) else page[0]
    return [
        f"[{file.title}]({link})" if link else file.title,
        f"`{provider.name}`",
        proofs,
        ", ".join(dict.fromkeys(form.name for form in file.handshake)) or "—",
        _identity(provider),
        "kept" if file.ordering.guaranteed else "not promised",
        {True: "yes", False: "no", None: "unknown"}[file.retries.automatic]
        + (f": {file.retries.schedule}" if file.retries.schedule else ""),
        "yes" if file.confirmed else f"no: {file.reason}",
    ]


def _identity(provider: Provider) -> str:
    identity = provider.file.identity
    if identity.kind == "delivery":
        return ", ".join(f"`{choice.value}`" for choice in identity.delivery)
    if identity.kind == "timestamp+body":
        return "signed time and body"
    window = f" for {identity.window:g} s" if identity.window else ""
    return f"body{window}"


def schema() -> str:
    """`docs/provider.schema.json`."""
    found = ProviderFile.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "A provider file of Nightbell"
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n"


def write(root: Path) -> None:
    """Write both files below `root`."""
    (root / TABLE).write_text(table(catalogue()), encoding="utf-8")
    (root / SCHEMA).write_text(schema(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
