"""The import law: an import goes down a floor only, and each third-party library stays within its border."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "schemas": 1,
    "eventlog": 2, "egress": 2, "payload": 2,
    "ingest": 3, "router": 3, "curator": 3, "dispatcher": 3, "store": 3,
    "control": 4,
    "runtime": 5,
}  # fmt: skip
# What control may take from the stages: their pure faces.
PURE_FACES = {
    "ingest.catalogue", "ingest.prepared", "ingest.schemes.base", "ingest.sign", "ingest.verify", "ingest.normalize", "ingest.receive", "ingest.handshake", "ingest.steps",
    "router.plan", "router.explain", "router.pattern", "router.matcher", "router.lint", "router.filters", "router.cesql",
    "router.rules_import", "router.operators", "router.values", "router.rule",
    "curator.calibrate", "curator.compose", "curator.contract", "curator.curate", "curator.enrich", "curator.suggest", "curator.tokens", "curator.view", "curator.views",
    "dispatcher.protocols", "dispatcher.signing", "dispatcher.retry",
}  # fmt: skip
BORDERS = {
    "aiokafka": {"eventlog/kafka.py", "eventlog/kafka_group.py", "eventlog/kafka_topics.py", "eventlog/kafka_errors.py"},
    "sqlalchemy": {"store/", "eventlog/sql.py"},
    "alembic": {"store/"},
    "asyncpg": {"store/"},
    "cryptography": {"ingest/schemes/", "dispatcher/signing.py", "store/vault.py"},
    "prometheus_client": {
        "ingest/metrics.py", "router/metrics.py", "dispatcher/metrics.py", "curator/metrics.py", "eventlog/metrics.py",
        "store/metrics.py", "control/", "runtime/",
    },
}  # fmt: skip


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in FLOORS:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "versions" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module, those under TYPE_CHECKING and inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_imports_go_down_only():
    wrong = []
    for path, tree in sources():
        package = path.split("/")[0]
        for name in imports(tree):
            top = name.split(".")[0]
            if top in FLOORS and top != package and FLOORS[top] >= FLOORS[package]:
                wrong.append(f"{path} imports {name}")

    assert not wrong


def test_control_takes_only_pure_faces_from_the_stages():
    wrong = []
    for path, tree in sources():
        if not path.startswith("control/"):
            continue
        for name in imports(tree):
            top = name.split(".")[0]
            if top in {"ingest", "router", "curator", "dispatcher"} and not any(
                name == face or name.startswith(face + ".") for face in PURE_FACES
            ):
                wrong.append(f"{path} imports {name}")

    assert not wrong


def test_schemas_need_only_pydantic_and_the_standard_library():
    wrong = []
    for path, tree in sources():
        if path.startswith("schemas/"):
            wrong += [
                f"{path} imports {name}"
                for name in imports(tree)
                if name.split(".")[0] not in sys.stdlib_module_names | {"pydantic", "schemas"}
            ]

    assert not wrong


@pytest.mark.parametrize("library", sorted(BORDERS))
def test_a_third_party_library_stays_within_its_border(library):
    wrong = []
    for path, tree in sources():
        if library in {name.split(".")[0] for name in imports(tree)} and not any(path.startswith(a) for a in BORDERS[library]):
            wrong.append(path)

    assert not wrong


def test_the_aiohttp_client_is_used_in_egress_only():
    client_names = {"ClientSession", "TCPConnector", "ClientTimeout", "request"}
    wrong = []
    for path, tree in sources():
        if path.startswith("egress/"):
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "aiohttp"
                and node.attr in client_names
            ):
                wrong.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "aiohttp" and {a.name for a in node.names} & client_names:
                wrong.append(f"{path}:{node.lineno}")

    assert not wrong


def test_schemas_ask_no_clock_and_do_no_io():
    forbidden = {"time", "datetime.now", "open", "random", "secrets", "os", "socket"}
    wrong = []
    for path, tree in sources():
        if path.startswith("schemas/"):
            wrong += [f"{path} imports {n}" for n in imports(tree) if n.split(".")[0] in forbidden]
            wrong += [
                f"{path}:{node.lineno} asks the clock"
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
            ]

    assert not wrong


def test_no_module_is_named_like_the_standard_library_or_a_dependency():
    """A module of ours that shadows a foreign one is found only inside its package, but readers are misled all the same."""
    foreign = set(sys.stdlib_module_names) | set(packages_distributions())
    wrong = [
        path
        for path, _ in sources()
        if path.endswith(".py")
        and path.count("/")
        and (path.rsplit("/", 1)[1].removesuffix(".py")) in foreign - set(FLOORS) - {"__init__"}
    ]

    assert not wrong


def test_each_top_level_package_belongs_to_our_distribution_alone():
    owners = packages_distributions()

    assert {
        name: set(owners.get(name, [])) - {"nightbell"} for name in FLOORS if set(owners.get(name, [])) - {"nightbell"}
    } == {}


def test_nothing_committed_names_a_registry_host_or_a_machine_path():
    import re
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    # Written in pieces, so that this file does not name them either.
    folders, hosts = "|".join(["wo" + "rk", "fa" + "rm"]), "|".join(["/sim" + "ple/", "/mav" + "en2/", "//regi" + "stry\\."])
    pattern = re.compile(rf'(^|[^A-Za-z0-9_.])/({folders})/|bash_j{"obs"}|https?://[^ "]*({hosts})')
    wrong = []
    for name in listed:
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        text = path.read_text(errors="ignore")
        if found := pattern.search(text):
            wrong.append(f"{name}: {found[0]!r}")

    assert not wrong
