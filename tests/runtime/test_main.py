import os
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from runtime import main
from runtime.keyfiles import address_path, admin_key_path, write_secret
from schemas.errors import Invalid


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
