import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtime import main
from runtime.keyfiles import address_path, admin_key_path, master_key, write_secret
from schemas.errors import Invalid

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.upper().startswith("NIGHTBELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    main.settings.cache_clear()
    yield
    main.settings.cache_clear()


def run(*words):
    return CliRunner().invoke(main.app, list(words), obj=main.means())


def test_the_version_is_printed():
    result = run("--version")

    assert (result.exit_code, result.stdout) == (0, version("nightbell") + "\n")


def test_help_begins_with_what_runs_a_process():
    shown = run("--help").stdout

    assert shown.index("serve") < shown.index("apply") < shown.index("migrate") < shown.index("check") < shown.index("sources")


def test_roles_are_words_and_all_is_all_of_them():
    assert main.roles_of(["all"]) == {"ingest", "router", "dispatcher", "api"}
    assert main.roles_of(["ingest", "api"]) == {"ingest", "api"}
    assert main.roles_of(["ingest", "all"]) == {"ingest", "router", "dispatcher", "api"}
    with pytest.raises(Invalid, match="no role kitchen; the roles are api, dispatcher, ingest, router, and all"):
        main.roles_of(["ingest", "kitchen"])


def test_a_wrong_setting_ends_with_2_and_names_the_nearest(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_LOGLEVEL", "debug")

    result = run("sources", "list", "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "nearest is NIGHTBELL_LOG_LEVEL" in result.stderr


def test_what_needs_no_settings_does_not_mind_wrong_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("NIGHTBELL_LOGLEVEL", "debug")
    (tmp_path / "lines").write_text('{"pattern": {"type": ["x"]}, "event": {"type": "x"}}\n')

    result = run("match", "--jsonl", str(tmp_path / "lines"))

    assert (result.exit_code, result.stdout) == (0, '{"matched":true}\n')


def test_the_command_line_finds_the_api_where_it_is_bound():
    found = main.means().connection()

    assert (found.url, found.ingest_url, found.key, found.is_embedded) == (
        "http://127.0.0.1:8081",
        "http://127.0.0.1:8080",
        None,
        True,
    )


@pytest.mark.parametrize(
    ("bind", "url"),
    [("0.0.0.0:9", "http://127.0.0.1:9"), ("[::]:9", "http://[::1]:9"), ("api.internal:9", "http://api.internal:9")],
)
def test_a_listener_on_all_addresses_is_reached_on_this_machine(monkeypatch, bind, url):
    monkeypatch.setenv("NIGHTBELL_API_BIND", bind)

    assert main.means().connection().url == url


def test_the_command_line_finds_the_port_that_a_server_wrote_and_its_key():
    found = main.settings()
    write_secret(admin_key_path(found.model_copy(update={"data_dir": _made(found.data_dir)})), "nbk_file")
    address_path(found).write_text("http://127.0.0.1:4711\n")

    connection = main.means().connection()

    assert (connection.url, connection.key) == ("http://127.0.0.1:4711", "nbk_file")


def test_a_given_url_wins(monkeypatch):
    _made(main.settings().data_dir)
    address_path(main.settings()).write_text("http://127.0.0.1:4711\n")
    main.settings.cache_clear()
    monkeypatch.setenv("NIGHTBELL_API_URL", "https://bell.example.com/")

    assert main.means().connection().url == "https://bell.example.com"


def _made(folder):
    folder.mkdir()
    return folder


def test_a_role_that_is_none_is_bad_input():
    result = run("serve", "kitchen")

    assert result.exit_code == 2
    assert "no role kitchen" in result.stderr


def test_a_role_alone_on_the_embedded_default_is_refused(tmp_path):
    words = [sys.executable, "-c", "from runtime.main import main; main()", "serve", "ingest"]

    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "the embedded default is one process" in done.stderr


def test_migrate_makes_the_schema_and_says_which():
    result = run("migrate", "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["revision"]
    assert json.loads(run("migrate", "--json").stdout) == json.loads(result.stdout)


def test_check_before_the_first_start_says_what_to_do_and_ends_with_1():
    result = run("check", "--json")

    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert {"level": "error", "subject": "master key"}.items() <= found[0].items()
    assert "nightbell serve" in found[0]["advice"]


def test_check_of_a_fresh_installation_finds_no_error():
    run("migrate")
    master_key(main.settings(), make=True)

    result = run("check")

    assert result.exit_code == 0, result.stdout
    assert "no event wakes an agent" in result.stdout


def test_a_key_is_made_in_the_store_of_an_installation_that_is_there():
    run("migrate")
    master_key(main.settings(), make=True)

    result = run("keys", "create", "root", "--role", "admin", "--local", "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["key"].startswith("nbk_")


def test_without_an_installation_no_key_is_made():
    result = run("keys", "create", "root", "--role", "admin", "--local")

    assert result.exit_code == 2
    assert "no master key yet" in result.stderr


def test_reading_commands_read_the_embedded_store_when_no_server_runs(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_API_BIND", "127.0.0.1:9")
    run("migrate")
    master_key(main.settings(), make=True)

    listed, missing = run("sources", "list", "--json"), run("events", "show", "evt_nothing")

    assert (listed.exit_code, listed.stdout) == (0, "")
    assert missing.exit_code == 3
