"""The names of log lines are a closed list: who greps or alerts on one finds it here."""

import ast
from pathlib import Path

import pytest

from runtime.logs import EVENTS, NEVER_WRITTEN

ROOT = Path(__file__).parents[2]
PACKAGES = ("payload", "eventlog", "egress", "ingest", "router", "curator", "dispatcher", "store", "control", "runtime")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def log_calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            if _name_of(node.func.value).lower().strip("_") in {"log", "logger", "say"}:
                yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.strip("_") == "say":
            yield node  # stages are handed the method that writes a line


def _name_of(node):
    if isinstance(node, ast.Call):
        return _name_of(node.func).removeprefix("get_")  # structlog.get_logger().info(…)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def all_calls():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in log_calls(ast.parse(path.read_text())):
                # `say` of control is how a command speaks to people.
                if package != "control" or call.func.attr != "say":
                    yield f"{path.relative_to(ROOT)}:{call.lineno}", call


def test_every_line_has_a_name_of_the_list():
    strangers = [
        place
        for place, call in all_calls()
        if not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value in EVENTS) or len(call.args) > 1
    ]

    assert strangers == [], "add the name to runtime.logs.EVENTS, or log a name instead of a sentence"


def test_no_line_has_a_field_that_is_always_blotted_out():
    blotted = [place for place, call in all_calls() for keyword in call.keywords if keyword.arg in NEVER_WRITTEN]

    assert blotted == []


@pytest.mark.parametrize(
    "source",
    [
        "log.info('a sentence')",
        "self._log.warning(f'{x}')",
        "_LOG.error('serving', 1)",
        "logger.info(name)",
        "structlog.get_logger().info('no')",
    ],
)
def test_the_search_finds_what_is_no_name(source):
    [call] = log_calls(ast.parse(source))

    assert not (isinstance(call.args[0], ast.Constant) and call.args[0].value in EVENTS and len(call.args) == 1)
