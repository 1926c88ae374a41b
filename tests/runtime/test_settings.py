import os
from pathlib import Path

import pytest

from runtime.settings import Settings, address_of, known_variables, load_settings
from runtime.settings_table import BEGIN, END, settings_page, settings_table, with_settings_table
from schemas.errors import BadSetting

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.upper().startswith("NIGHTBELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_a_word_everything_lies_in_the_data_folder_and_is_embedded(tmp_path):
    found = load_settings()

    assert found.log_url == f"sqlite:///{tmp_path}/.nightbell/log.db"
    assert found.store_url == f"sqlite:///{tmp_path}/.nightbell/store.db"
    assert found.spool_dir == tmp_path / ".nightbell" / "spool"
    assert found.is_embedded
    assert (found.ingest_bind, found.api_bind) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert [found.retention_log_days, found.retention_events_days, found.retention_bodies_days, found.retention_seen_days] == [
        7,
        30,
        14,
        35,
    ]


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_LOG_URL", "kafka://a:9092,b:9092")
    monkeypatch.setenv("NIGHTBELL_STORE_URL", "postgresql://n:secretword@db/n")

    found = load_settings()

    assert found.log_url == "kafka://a:9092,b:9092"
    assert not found.is_embedded
    assert "secretword" not in repr(found)


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("NIGHTBELL_LOG_LEVEL=debug\nNIGHTBELL_TOPIC_PREFIX=fromfile\nOTHER=1\n")
    monkeypatch.setenv("NIGHTBELL_TOPIC_PREFIX", "fromenv")

    found = load_settings()

    assert (found.log_level, found.topic_prefix) == ("debug", "fromenv")


@pytest.mark.parametrize("name", ["NIGHTBELL_RETENTION_LOG_DAYS", "NIGHTBELL_LOG_DAYS"])
def test_both_readings_of_the_retention_names_are_taken(monkeypatch, name):
    monkeypatch.setenv(name, "3")

    assert load_settings().retention_log_days == 3


def test_an_empty_variable_counts_as_absent(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_LOG_LEVEL", "")
    monkeypatch.setenv("NIGHTBELL_MASTER_KEY", "")

    found = load_settings()

    assert (found.log_level, found.master_key) == ("info", None)


def test_an_unknown_variable_is_an_error_that_names_the_nearest(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_LOGLEVEL", "debug")

    with pytest.raises(BadSetting, match="NIGHTBELL_LOGLEVEL is no setting; the nearest is NIGHTBELL_LOG_LEVEL"):
        load_settings()


def test_an_unknown_variable_of_the_env_file_is_an_error_too(tmp_path):
    (tmp_path / ".env").write_text("NIGHTBELL_DATADIR=/x\n")

    with pytest.raises(BadSetting, match="nearest is NIGHTBELL_DATA_DIR"):
        load_settings()


def test_what_only_tests_read_is_passed_over(monkeypatch):
    monkeypatch.setenv("NBTEST_ANYTHING", "1")

    assert load_settings().log_level == "info"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NIGHTBELL_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("NIGHTBELL_API_BIND", "8081", "write host:port"),
        ("NIGHTBELL_API_BIND", "a:99999", "write host:port"),
        ("NIGHTBELL_INGEST_URL", "hooks.example.com", "http or https URL"),
        ("NIGHTBELL_LOG_URL", "redis://x", "kafka://"),
        ("NIGHTBELL_STORE_URL", "mysql://x", "postgresql://"),
        ("NIGHTBELL_LOG_DAYS", "-1", "greater than 0"),
        ("NIGHTBELL_MAX_BODY_BYTES", "99999999999", "less than or equal to"),
        ("NIGHTBELL_KAFKA_SASL_MECHANISM", "GSSAPI", "SCRAM-SHA-512"),
        ("NIGHTBELL_KAFKA_SASL_MECHANISM", "PLAIN", "needs NIGHTBELL_KAFKA_SASL_USERNAME"),
        ("NIGHTBELL_KAFKA_CERT_FILE", "/c.pem", "go together"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)

    with pytest.raises(BadSetting) as caught:
        load_settings()

    assert name.replace("LOG_DAYS", "RETENTION_LOG_DAYS") in caught.value.detail
    assert said in caught.value.detail
    assert "default factory" not in caught.value.detail


def test_a_wrong_secret_is_not_repeated_in_the_error(monkeypatch):
    monkeypatch.setenv("NIGHTBELL_STORE_URL", "mysql://u:hunter2@db")

    with pytest.raises(BadSetting) as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("bind", "host", "port"), [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:8080", "::1", 8080), ("a.b:1", "a.b", 1)]
)
def test_an_address_is_host_and_port(bind, host, port):
    assert address_of(bind) == (host, port)


def test_every_field_has_a_sentence_and_a_variable():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert name in known_variables().values()


def test_the_table_names_every_variable_that_is_taught():
    table = settings_table()

    assert table.count("\n") == len(Settings.model_fields) + 2
    assert "| `NIGHTBELL_DATA_DIR` | `.nightbell` |" in table
    assert "`NIGHTBELL_RETENTION_LOG_DAYS` | `7.0`" in table
    assert "`sqlite:///<data>/log.db`" in table


def test_the_settings_page_of_the_documents_is_current():
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page(), "run: make docs"


def test_the_table_is_put_between_its_marks_and_nowhere_else():
    done = with_settings_table(f"before\n{BEGIN}\nwhat was here\n{END}\nafter\n")

    assert done.startswith(f"before\n{BEGIN}\n| variable")
    assert done.endswith(f"{END}\nafter\n")
    assert "what was here" not in done
    with pytest.raises(ValueError, match="has no"):
        with_settings_table("no marks")
