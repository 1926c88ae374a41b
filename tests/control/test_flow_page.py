"""The page on order and flow control: what it shows can be applied."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from control.configfile import parse_config
from runtime.wiring import config_checks
from schemas.config import AgentSpec, SubscriptionSpec

PAGE = (Path(__file__).parents[2] / "docs" / "flow.md").read_text(encoding="utf-8")


def test_the_file_on_the_page_has_no_flaw() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

    found = parse_config([("flow.md", text)], environment={}, checks=config_checks())

    assert found.document["quota"] == {"attempts": 6000, "per": "1m"}
    assert set(found.document["subscriptions"]) == {"bugs", "pushes", "nightly"}


def test_the_page_shows_every_field_of_flow_control() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shown = yaml.safe_load(text)

    fields = {name for spec in shown["subscriptions"].values() for name in spec}
    asked = {"order", "on_burial", "stale", "concurrency", "rate_per_s", "burst", "delay", "expires_after", "debounce", "batch"}
    assert asked <= fields & SubscriptionSpec.model_fields.keys()
    assert {"max_concurrency", "rate_per_s", "burst", "shards"} <= shown["agents"][
        "triage"
    ].keys() & AgentSpec.model_fields.keys()


def test_every_test_that_the_page_names_is_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))

    named = re.findall(r"`(test_\w+)`", PAGE)

    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []
