"""One broker, one trio of brokers and one PostgreSQL for all fault runs: not the session's own, since these are killed.

Tests that are marked with the `tools` they need run in `make chaos` only; those whose tools are not here are named at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.chaos.scene import DOORS
from tests.servers import kafka
from tests.servers.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def broker() -> Iterator[kafka.Cluster]:
    with kafka.Cluster(doors=DOORS) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def trio() -> Iterator[kafka.Cluster]:
    """Three brokers, every topic on all of them."""
    with kafka.Cluster(brokers=3, heap_mb=256, extra={"default.replication.factor": "3"}) as cluster:
        yield cluster


def lacking(name: str) -> str:
    """Why this tool cannot be used here; empty where it can."""
    if shutil.which(name) is None:
        return f"{name} is not installed"
    return f"{name} needs root" if name in {"mount", "nft"} and os.geteuid() != 0 else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("tools")]
    if not os.environ.get("NBTEST_CHAOS"):
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]
        return
    for item in marked:
        marker = item.get_closest_marker("tools")
        reasons = [reason for name in (marker.args if marker else ()) if (reason := lacking(name))]
        if reasons:
            item.add_marker(pytest.mark.skip(reason="; ".join(reasons)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("NBTEST_CHAOS"):
        return
    terminalreporter.section("did not run")
    left_out = terminalreporter.stats.get("skipped", [])
    for report in left_out:
        terminalreporter.line(
            f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
        )
    if not left_out:
        terminalreporter.line("nothing: every tool was there")
