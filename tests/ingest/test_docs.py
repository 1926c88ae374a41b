"""What is generated from the catalogue is current."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import orjson
import pytest

from ingest import docs
from ingest.catalogue import catalogue

ROOT = Path(__file__).parents[2]


def test_the_table_of_providers_is_current():
    assert (ROOT / docs.TABLE).read_text() == docs.table(catalogue()), "run: python -m ingest.docs"


def test_the_schema_of_provider_files_is_current():
    assert (ROOT / docs.SCHEMA).read_text() == docs.schema(), "run: python -m ingest.docs"


@pytest.mark.parametrize("name", catalogue())
def test_every_file_fits_the_published_schema(name: str):
    written = tomllib.loads((ROOT / "ingest/providers" / f"{name}.toml").read_text())

    jsonschema.validate(written, orjson.loads(docs.schema()))
