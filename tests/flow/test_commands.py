"""Every command of the command line against one running system: good input and bad, for people and for programs."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from examples import senders
from runtime import main
from tests.flow.running import NIGHTBELL, ROOT, until
from tests.flow.world import CONFIG, World, captured, happened

SECRET = "github_acme_secret".upper()
EVENT = json.dumps({"id": "evt_x", "source": "crm", "type": "crm.deal.closed", "data": {"deal": {"amount": 7}}})
LINE = json.dumps({"pattern": {"source": ["crm"]}, "event": {"source": "crm"}})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with happened(tmp_path_factory.mktemp("commands")) as found:
        folder = found.running.folder
        genuine, forged = senders.github(40), senders.github(41, secret="guessed")
        (folder / "issue.json").write_bytes(senders.github(42).body)
        (folder / "request.http").write_text(captured(genuine), newline="")
        (folder / "forged.http").write_text(captured(forged), newline="")
        (folder / "lines.jsonl").write_text(LINE + "\n")
        (folder / "events.jsonl").write_text(json.dumps({"event": json.loads(EVENT)}) + "\n")
        (folder / "requests.jsonl").write_text(_request_line(genuine) + "\n")
        (folder / "rules.json").write_text(json.dumps({"Name": "acme", "EventPattern": json.dumps({"source": ["crm"]})}))
        (folder / "bad.yaml").write_text(CONFIG.replace("provider: github", "provider: gitbuh"))
        yield found


def _request_line(delivery: senders.Delivery) -> str:
    return json.dumps(
        {
            "provider": "github", "source": {"provider": "github", "secrets": [senders.SECRETS["github-acme"]]}, "method": "POST",
            "url": "https://hooks.example.com/in/github-acme", "headers": list(delivery.headers.items()),
            "body_b64": base64.b64encode(delivery.body).decode(), "now_unix": int(time.time()),
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A command, how it ends, and what stands on stdout (where it ends well) or stderr."""

    words: str  # the names of the world in braces; split at spaces
    code: int
    holds: str = ""
    in_json: bool = True  # it takes --json
    stdin: str | None = None

    def __str__(self) -> str:
        return f"{self.words} → {self.code}"


COMMANDS = [
    Told("apply -f {folder}/nightbell.yaml", 0, "as they were"),
    Told("apply -f {folder}/nightbell.yaml --dry-run --prune --cancel", 0, "to change"),
    Told("apply -f {folder}/bad.yaml", 2, "bad.yaml:3:"),
    Told("apply -f {folder}/none.yaml", 2, "cannot read"),
    Told("import-rules {folder}/rules.json --agent good", 0, "acme", in_json=False),
    Told("import-rules {folder}/none.json --agent good", 2, "none.json"),
    Told("check", 0, "leavers"),
    Told("sources list", 0, "github-acme"),
    Told("sources show github-acme", 0, "{ingest}/in/github-acme"),
    Told("sources show nobody", 3, "no source"),
    Told("agents list", 0, "picky"),
    Told("agents show good", 0, "max_concurrency"),
    Told("agents show nobody", 3, "no agent"),
    Told("agents ping good", 0, "delivered"),
    Told("agents ping picky", 1, ""),
    Told("agents ping nobody", 3, "no agent"),
    Told("agents rotate-secret runner", 0, "whsec_"),
    Told("agents rotate-secret nobody", 3, "no agent"),
    Told("subscriptions list", 0, "bugs"),
    Told("subscriptions show leavers", 0, "disabled"),
    Told("subscriptions show nobody", 3, "no subscription"),
    Told("subscriptions enable leavers", 0, "live"),
    Told("subscriptions enable nobody", 3, ""),
    Told("providers list", 0, "stripe"),
    Told("providers show slack_events", 0, "On the vendor's side"),
    Told("providers show fax", 3, "fax"),
    Told("providers verify --provider github --secret-env {secret} {folder}/request.http", 0, "github.issues.opened"),
    Told("providers verify --provider github --secret-env {secret} {folder}/forged.http", 1, "signature_mismatch"),
    Told("providers verify --provider github --secret-env UNSET {folder}/forged.http", 2, "UNSET"),
    Told("providers verify --jsonl {folder}/requests.jsonl", 0, '"ok":true', in_json=False),
    Told("providers normalize --provider github {folder}/request.http", 0, "github.issues.opened"),
    Told("providers normalize --jsonl {folder}/requests.jsonl", 0, "events", in_json=False),
    Told("providers normalize --provider github", 2, "REQUEST"),
    Told("events list", 0, "github.issues.opened"),
    Told("events list --type nothing.such", 0, ""),
    Told("events list --since yesterday", 2, "yesterday"),
    Told("events show {event}", 0, "Checkout charges twice"),
    Told("events show evt_none", 3, "no such event"),
    Told("trace {event}", 0, "attempt 1"),
    Told("trace evt_none", 3, "no such event"),
    Told("explain {event}", 0, "bugs"),
    Told("explain {event} runs", 1, ""),
    Told("explain {event} nobody", 3, "nobody"),
    Told("listen --since 1h --limit 1", 0, "evt_"),
    Told("listen --since never", 2, "never"),
    Told('match -p {"source":["crm"]} -e {x}', 0, "match"),
    Told('match -p {"source":["github-acme"]} -e {event}', 0, "match"),
    Told('match -p {"source":["erp"]} -e {x}', 1, ""),
    Told('match -p {"source":[{"sounds-like":"erp"}]} -e {x}', 2, "sounds-like"),
    Told("match --jsonl {folder}/lines.jsonl", 0, '"matched":true', in_json=False),
    Told("curate -s bugs -e {event}", 0, "Checkout charges twice"),
    Told("curate --view data.deal -e {x}", 0, '{"amount":7}'),
    Told("curate --jsonl {folder}/events.jsonl", 0, "raw_tokens", in_json=False),
    Told("curate --view data.[ -e {x}", 2, ""),
    Told("curate -s nobody -e {event}", 3, "nobody"),
    Told("send github {folder}/issue.json --to {ingest}/in/github-acme --secret-env {secret}", 0, "202"),
    Told("send github {folder}/issue.json --secret-env {secret}", 0, "202"),
    Told("send github {folder}/issue.json --to {ingest}/in/github-acme --secret-env CRM_SECRET", 1, ""),
    Told("send github {folder}/none.json --to {ingest}/in/github-acme", 2, "none.json"),
    Told("send github {folder}/issue.json --to http://127.0.0.1:9/in/x --secret-env {secret}", 5, "no answer"),
    Told("invocations list", 0, "refused"),
    Told("invocations list --state buried --agent picky", 0, "{buried}"),
    Told("invocations list --state lost", 2, "lost"),
    Told("invocations show {buried}", 0, "400"),
    Told("invocations show inv_none", 3, "no such invocation"),
    Told("invocations cancel {waiting} --dry-run", 0, "would be canceled"),
    Told("invocations cancel {done}", 1, "done"),
    Told("invocations cancel {run} --dry-run", 0, "would be asked to stop"),
    Told("invocations cancel {run} --force --dry-run", 0, "would be asked to stop"),
    Told("invocations resolve {asked} done", 0, "done", in_json=False),
    Told("invocations resolve {done} again --note nobody-asked", 1, "waits for nobody"),
    Told("dead list", 0, "refused"),
    Told("dead list --reason lost", 2, "lost"),
    Told("dead counts", 0, "picky"),
    Told("dead show {buried}", 0, "webhook-id"),
    Told("dead show {done}", 3, "no dead letter"),
    Told("dead purge {buried} --dry-run", 0, "would be purged"),
    Told("dead purge --agent picky --dry-run", 0, "1 would be purged"),
    Told("dead purge", 2, "--all"),
    Told("redrive --reason gone --dry-run", 0, "would be redriven"),
    Told("redrive {buried} --dry-run", 0, "would be"),
    Told("redrive {done}", 1, "done"),
    Told("redrive --agent picky --dry-run", 0, "1 would be redriven"),
    Told("redrive", 2, "--all"),
    Told("quota set 600000 1m", 0, "600000"),
    Told("quota set many 1m", 2, "quota set"),
    Told("quota show", 0, "600000"),
    Told("quota clear", 0, "none"),
    Told("lanes list --blocked", 0, "careful"),
    Told("lanes list --limit many", 2, "lanes list"),
    Told("lanes unblock --all", 2, "--skip"),
    Told("lanes unblock --all --skip --dry-run", 0, "1 would be skipped"),
    Told("replay {event} --dry-run", 0, "1 would be replayed"),
    Told("replay {event}", 0, "1 replayed"),
    Told("replay evt_none", 3, "no such event"),
    Told("replay", 2, "--all"),
    Told("facts put acme/shop tier gold", 0, ""),
    Told("facts put acme/shop tier gold --expires never", 2, "never"),
    Told("facts list acme/shop", 0, "gold"),
    Told("facts list", 2, ""),
    Told("secrets put crm-key", 0, "", stdin="a secret of the crm\n"),
    Told("secrets put crm-key", 2, "", stdin=""),
    Told("secrets list", 0, "crm-key"),
    Told("secrets delete crm-key", 0, ""),
    Told("secrets delete nobody", 3, ""),
    Told("context stats", 0, ""),
    Told("context calibration", 0, ""),
    Told("context stats --since never", 2, "never"),
    Told("keys list", 0, "first admin"),
    Told("keys create ci --role operator", 0, "nbk_"),
    Told("keys create ci --role agent", 2, "--agent"),
    Told("keys create other --local", 5, ""),  # a server holds the store
    Told("keys revoke ci", 0, "revoked"),
    Told("keys revoke nobody", 3, "nobody"),
]


def filled(text: str, world: World) -> list[str]:
    names = {**world.names, "secret": SECRET, "x": EVENT}
    words = text.split(" ")
    for name, value in names.items():
        words = [word.replace("{" + name + "}", value) for word in words]
    return words


@pytest.mark.parametrize("told", COMMANDS, ids=str)
def test_a_command_tells_people(told: Told, world: World):
    done = world.running.run(*filled(told.words, world), stdin=told.stdin)

    assert done.exit_code == told.code, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    assert filled(told.holds.replace(" ", "\0"), world)[0].replace("\0", " ") in (
        done.stdout if told.code == 0 else done.stdout + done.stderr
    )
    assert "Traceback" not in done.stderr
    if told.code > 1:
        assert done.stdout == ""
        assert done.stderr.strip()


READS = [
    told
    for told in COMMANDS
    if told.in_json and told.code in {0, 1} and not told.words.startswith(("send", "redrive", "replay", "dead purge"))
]


@pytest.mark.parametrize("told", READS, ids=str)
def test_a_command_tells_programs(told: Told, world: World):
    words = filled(told.words, world)
    if (
        words[:2] in (["keys", "create"], ["keys", "revoke"], ["agents", "rotate-secret"], ["subscriptions", "enable"])
        or words[0] == "secrets"
    ):
        pytest.skip("once is enough: it changes something")

    done = world.running.run(*words, "--json")

    assert done.exit_code == told.code, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert told.code == 1 or documents or told.holds == ""
    assert all(isinstance(document, dict) for document in documents)


def commands_of(group: object, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_is_run_well_and_badly():
    known = set(commands_of(typer.main.get_command(main.app)))

    def run(codes: set[int]) -> set[str]:
        words = [told.words.split() for told in COMMANDS if told.code in codes]
        return {name for name in known for each in words if each[: len(name.split())] == name.split()}

    lists = {
        "sources list",
        "agents list",
        "subscriptions list",
        "providers list",
        "keys list",
        "secrets list",
        "context calibration",
        "quota show",
        "quota clear",
        "dead counts",
    }  # which take no input
    assert known - run({0}) == {"serve", "migrate", "move"}  # run below, or where Kafka and PostgreSQL are
    assert known - run({1, 2, 3, 5}) == {"serve", "migrate", "move", "check"} | lists


def test_a_ping_shows_how_long_each_step_took(world: World):
    (answer,) = world.running.lines("agents", "ping", "good")

    assert [step["step"] for step in answer["steps"]] == ["setting", "sign", "send", "answer"]
    assert answer["steps"][2]["elapsed_ms"] > 0


def test_listen_forwards_what_comes_to_a_local_url(world: World):
    running = world.running
    command = [NIGHTBELL, "listen", "--forward", f"{running.agents.url}/listener", "--source", "crm", "--limit", "1"]
    env = running.environment | {"NIGHTBELL_API_URL": running.api_url}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        assert "listening" in listening.stderr.readline()
        assert running.post(senders.crm(77))[0] == 202
        out, _ = listening.communicate(timeout=30)

    assert listening.returncode == 0
    assert "crm.deal.closed" in out or "deal.closed" in out
    assert running.agents.forged.pop().startswith("listener")  # it was forwarded, and is no agent's call


def test_wrong_keys_and_no_keys_are_not_allowed(world: World):
    running = world.running
    viewer = running.ok("keys", "create", "looker", "--role", "viewer").strip()
    running.extra["NIGHTBELL_API_KEY"] = viewer
    try:
        assert running.run("events", "list").exit_code == 0
        assert running.run("agents", "ping", "good").exit_code == 4
        running.extra["NIGHTBELL_API_KEY"] = "nbk_" + "x" * 43
        assert running.run("events", "list").exit_code == 4
    finally:
        del running.extra["NIGHTBELL_API_KEY"]


def test_an_unknown_setting_is_bad_input_and_names_the_nearest(world: World):
    running = world.running
    running.extra["NIGHTBELL_API_BIN"] = "127.0.0.1:1"
    try:
        done = running.run("events", "list")
    finally:
        del running.extra["NIGHTBELL_API_BIN"]

    assert done.exit_code == 2
    assert "NIGHTBELL_API_BIND" in done.stderr


def run(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | {"NIGHTBELL_DATA_DIR": str(folder)} | extra
    return subprocess.run([NIGHTBELL, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_migrate_makes_the_schema_and_check_then_finds_no_rules(tmp_path: Path):
    made = run(tmp_path / "data", "migrate", "--json")
    again = run(tmp_path / "data", "migrate")
    bad = run(tmp_path / "data", "migrate", NIGHTBELL_STORE_URL="sqlite:////proc/none/store.db")

    assert made.returncode == again.returncode == 0, made.stderr
    assert json.loads(made.stdout)["revision"] in again.stdout
    assert bad.returncode == 2
    assert "cannot make the folder of the store" in bad.stderr


def test_serve_refuses_what_it_cannot_run(tmp_path: Path):
    role = run(tmp_path, "serve", "kitchen")
    apart = run(tmp_path, "serve", "ingest")
    port = run(tmp_path, "serve", NIGHTBELL_API_BIND="192.0.2.1:1", NIGHTBELL_INGEST_BIND="127.0.0.1:0")
    file = run(tmp_path, "serve", "--apply", str(tmp_path / "none.yaml"), NIGHTBELL_INGEST_BIND="127.0.0.1:0")

    assert [done.returncode for done in (role, apart, port, file)] == [2, 2, 2, 2]
    assert "kitchen" in role.stderr
    assert "one process" in apart.stderr
    assert "cannot listen on 192.0.2.1:1" in port.stderr
    assert "none.yaml" in file.stderr
    assert "Traceback" not in role.stderr + apart.stderr + port.stderr + file.stderr


def test_another_master_key_is_refused_at_the_start(tmp_path: Path):
    assert run(tmp_path, "migrate").returncode == 0
    binds = {"NIGHTBELL_API_BIND": "127.0.0.1:0", "NIGHTBELL_INGEST_BIND": "127.0.0.1:0"}
    env = {**os.environ, "NIGHTBELL_DATA_DIR": str(tmp_path), **binds}
    with subprocess.Popen([NIGHTBELL, "serve"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        assert "ingest listens on " in first.stdout.readline()
        url = first.stdout.readline().split()[-1]
        until(lambda: urllib.request.urlopen(f"{url}/readyz", timeout=2).status == 200)
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=40) == 0
    (tmp_path / "master.key").write_text(base64.b64encode(bytes(range(32))).decode() + "\n")

    done = run(tmp_path, "serve", **binds)

    assert done.returncode == 2
    assert "NIGHTBELL_MASTER_KEY" in done.stderr


def test_without_a_server_what_reads_reads_the_store_and_what_writes_says_so(world: World):
    """The last one: it stops the server."""
    running = world.running
    events = running.lines("events", "list")
    assert running.stop() == 0
    assert until(lambda: running.process.poll() is not None)

    assert running.lines("events", "list") == events
    assert "first admin" in running.ok("keys", "list")
    assert "attempt 1" in running.ok("trace", world.done_event)
    assert running.run("keys", "create", "late").exit_code == 5
    assert running.ok("keys", "create", "late", "--local").startswith("nbk_")
    assert "late" in running.ok("keys", "list")
