"""What `nightbell check` sees of this machine's spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventlog.config import LogConfig
from eventlog.sql import SqlLog
from ingest.spool import PLACE
from runtime.desk import LOCAL_ADMIN, DeskApi, build_desk
from runtime.inspection import _advice, _spool_findings, kind_of_mount
from runtime.receiving import SPOOL_FILE
from runtime.settings import Settings
from schemas.topics import Draft
from store.connect import connect
from store.vault import Vault

MOUNTS = """\
overlay / overlay rw,relatime 0 0
tmpfs /run tmpfs rw 0 0
/dev/sda1 /run/spool ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"), [("/var/lib", "overlay"), ("/run/nightbell", "tmpfs"), ("/run/spool/a", "ext4"), ("/running", "overlay")]
)
def test_a_path_lies_on_the_nearest_mount(path: str, kind: str):
    assert kind_of_mount(Path(path), MOUNTS) == kind


def test_without_a_table_of_mounts_nothing_is_said():
    assert kind_of_mount(Path("/var"), "") == ""


def settings_in(folder: Path, **more: str) -> Settings:
    return Settings(_env_file=None, data_dir=folder, log_url="kafka://127.0.0.1:1", store_url="postgresql://h/d", **more)


def test_an_empty_spool_is_nothing_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.inspection._mounts", lambda: MOUNTS)

    assert list(_spool_findings(settings_in(tmp_path))) == []


def test_a_spool_in_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.inspection._mounts", lambda: f"{MOUNTS}tmpfs {tmp_path} tmpfs rw 0 0\n")

    [found] = _spool_findings(settings_in(tmp_path))

    assert (found["level"], found["subject"]) == ("error", "spool")


async def test_events_that_wait_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.inspection._mounts", lambda: MOUNTS)
    settings = settings_in(tmp_path)
    settings.spool_dir.mkdir()
    log = SqlLog(settings.spool_dir / SPOOL_FILE, LogConfig(partitions=1, reserve_bytes=0))
    await log.start()
    await log.append([Draft(PLACE.topic, "k", b"x", {})])
    await log.aclose()

    [found] = _spool_findings(settings)

    assert found["level"] == "warning"
    assert found["message"].startswith("1 events wait")


def test_a_file_that_is_no_spool_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.inspection._mounts", lambda: MOUNTS)
    settings = settings_in(tmp_path)
    settings.spool_dir.mkdir()
    (settings.spool_dir / SPOOL_FILE).write_bytes(b"no database at all" * 100)

    [found] = _spool_findings(settings)

    assert found["level"] == "error"


def test_the_embedded_default_has_no_spool(tmp_path: Path):
    assert list(_spool_findings(Settings(_env_file=None, data_dir=tmp_path))) == []


async def test_what_is_probably_not_meant_in_subscriptions_is_told(tmp_path: Path):
    store = connect(f"sqlite:///{tmp_path / 'store.db'}")
    await store.start(may_migrate=True)
    try:
        desk = build_desk(settings_in(tmp_path), store, Vault([bytes(32)]))
        patterns = {"one": {"type": ["a"]}, "same": {"type": ["a"]}, "all": {"data": {"n": [{"exists": True}]}}}
        document = {
            "version": 1,
            "agents": {"triage": {"url": "https://agents.example.com/"}},
            "subscriptions": {name: {"agent": "triage", "pattern": pattern} for name, pattern in patterns.items()},
        }
        plan = await DeskApi(desk, LOCAL_ADMIN).call("POST", "/v1/apply", body=document)
        found = [(each["level"], each["subject"], each["message"]) async for each in _advice(desk)]
    finally:
        await store.aclose()

    assert {(each["subscription"], each["code"]) for each in plan["warnings"]} == {
        ("one", "duplicate"),
        ("same", "duplicate"),
        ("all", "not-indexed"),
    }
    assert [(level, subject) for level, subject, _ in sorted(found)] == [
        ("info", "subscription all"),
        ("warning", "subscription one"),
        ("warning", "subscription same"),
    ]
    assert "comparisons each" in min(found)[2]
