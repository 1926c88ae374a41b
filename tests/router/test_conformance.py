"""Third-party vectors, where NBTEST_CONFORMANCE_DIR says where they are."""

import json
import os
from pathlib import Path

import json5
import pytest
import yaml

from router.cesql import evaluate
from router.cesql_grammar import parse
from router.cesql_values import CesqlError
from router.matcher import Matcher
from router.pattern import compile_pattern, parse_pattern_text
from router.values import parse_exact
from schemas.errors import Invalid

FOLDER = os.environ.get("NBTEST_CONFORMANCE_DIR")
HERE = Path(FOLDER) if FOLDER else None

# The house's law (ADR: the last of two equal keys wins everywhere) against event-ruler's, which matches both.
OURS = {"duplicate key in event: either?": "false"}


def test_conformance_data_was_there():
    if HERE is None:
        pytest.skip("NOT RUN: the conformance vectors; set NBTEST_CONFORMANCE_DIR to the folder that has them")
    assert (HERE / "event-pattern-probes.jsonl").is_file()


def _probes():
    return [json.loads(line) for line in (HERE / "event-pattern-probes.jsonl").read_text().splitlines()] if HERE else []


def _answer(rule, event, engine):
    try:
        pattern = compile_pattern(parse_pattern_text(rule))
    except Invalid:
        return "error"
    document = json.loads(event)
    if not isinstance(document, dict):
        return "error"
    matched = pattern.matches(document, exact=lambda: parse_exact(event))
    found = Matcher([("r", "t", pattern)], engine=engine).match("t", document, exact=lambda: parse_exact(event))
    assert found == (["r"] if matched else [])
    return str(matched).lower()


@pytest.mark.parametrize("probe", _probes(), ids=lambda probe: probe["label"])
def test_a_probe_gets_the_answer_of_event_ruler(engine, probe):
    expected = OURS.get(probe["label"]) or ("error" if probe["event_ruler"].startswith("ERR") else probe["event_ruler"])

    assert _answer(probe["rule"], probe["event"], engine) == expected


TEMPLATES = sorted((HERE / "event-pattern-templates").glob("*.json5")) if HERE else []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_gets_the_answer_of_eventbridge(engine, path):
    template = json5.loads(path.read_text())
    expected = "error" if path.stem.endswith("_EXC") else str(not path.stem.endswith("_NEG")).lower()

    assert _answer(json.dumps(template["EventPattern"]), json.dumps(template["Event"]), engine) == expected


class Plain(yaml.SafeLoader):
    """YAML whose times stay text, as an event has them."""


Plain.yaml_implicit_resolvers = {
    letter: [pair for pair in pairs if not pair[0].endswith("timestamp")]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _tck():
    if HERE is None:
        return []
    files = [yaml.load(path.read_text(), Plain) for path in sorted((HERE / "cesql").glob("*.yaml"))]
    return [(file["name"], case) for file in files for case in file["tests"]]


EVENT = {"specversion": "1.0", "id": "an-id", "source": "http://localhost/source", "type": "a.type"}


@pytest.mark.parametrize("case", [case for _, case in _tck()], ids=[f"{name}: {case['name']}" for name, case in _tck()])
def test_cesql_answers_as_its_conformance_suite_says(case):
    event = case.get("event") or {**EVENT, **case.get("eventOverrides", {})}

    try:
        value, error = evaluate(parse(str(case["expression"])), event)
    except CesqlError:
        value, error = False, "parse"

    assert error == case.get("error")
    if "result" in case:
        assert (type(value), value) == (type(case["result"]), case["result"])
