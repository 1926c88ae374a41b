from __future__ import annotations

import sqlite3
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import bindparam, not_, select, text

from store.prepared import POSTGRES, SQLITE, Bulk, Prepared, among
from store.schema import migrate
from store.tables import invocations, seen

_HOT = ("admission", "heads", "moves", "mending", "releases", "shards", "redress")
_SMALL = {"shards", "owners"}  # 64 rows; one per process
_WHOLE_BY_NATURE = {"redress._OPEN_OF"}  # an operator's act that looks for a subscription's lanes


def test_parameters_are_put_where_the_driver_wants_them() -> None:
    prepared = Prepared(
        select(invocations.c.seq).where(
            among(invocations.c.id, "ids"), invocations.c.state == "queued", invocations.c.due_ms == bindparam("at")
        ),
        *("at", "ids"),
    )

    lite, post = prepared.form(SQLITE), prepared.form(POSTGRES)

    assert lite.text.count("?") == 3
    assert lite.arrange is not None
    assert lite.arrange((7, ["a", 'b"'])) == ['["a","b\\""]', "queued", 7]
    assert post.arrange is not None
    assert post.arrange((7, ["a"])) == [["a"], "queued", 7]
    assert "= ANY ($1" in post.text


def test_a_parameter_that_stands_twice_is_given_once() -> None:
    prepared = Prepared(text("SELECT :a, :b, :a"), "a", "b")

    lite = prepared.form(SQLITE)

    assert lite.arrange is not None
    assert lite.arrange((1, 2)) == [1, 2, 1]
    assert prepared.form(POSTGRES) == ("SELECT $1, $2, $1", None)


def test_a_name_too_many_or_too_few_is_told_at_once() -> None:
    for names in ((), ("a", "b")):
        with pytest.raises(ValueError, match="do not fit"):
            Prepared(text("SELECT :a"), *names).form(SQLITE)


def test_a_bulk_insert_is_one_statement_over_arrays_on_postgresql() -> None:
    bulk = Bulk(seen, "event_id", "expires_ms", then="ON CONFLICT DO NOTHING RETURNING event_id")

    assert (
        bulk.text(SQLITE) == "INSERT INTO seen (event_id, expires_ms) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING event_id"
    )
    assert bulk.text(POSTGRES) == (
        "INSERT INTO seen (event_id, expires_ms) SELECT * FROM unnest($1::TEXT[], $2::BIGINT[]) "
        "ON CONFLICT DO NOTHING RETURNING event_id"
    )


def test_the_negation_of_a_list_is_written_so_that_an_index_serves() -> None:
    written = Prepared(select(seen.c.event_id).where(not_(among(seen.c.event_id, "ids"))), "ids").form(SQLITE).text

    assert "NOT seen.event_id IN (SELECT value FROM json_each(?))" in written
    assert "= 1" not in written


async def test_no_statement_of_the_hot_path_reads_a_whole_table(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path / 'store.db'}")
    connection = sqlite3.connect(tmp_path / "store.db")
    scans = {}
    seen_some = 0

    for name in _HOT:
        for word, found in vars(import_module(f"store.{name}")).items():
            if isinstance(found, Prepared) and f"{name}.{word}" not in _WHOLE_BY_NATURE:
                seen_some += 1
                statement = found.form(SQLITE).text
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * statement.count("?")).fetchall()
                whole = [
                    row[3]
                    for row in plan
                    if row[3].startswith("SCAN") and row[3].split()[1] not in {"json_each", "CONSTANT", *_SMALL}
                ]
                if whole:
                    scans[f"{name}.{word}"] = whole

    connection.close()
    assert seen_some > 25
    assert scans == {}
