import base64
import os
import stat

import pytest

from runtime.keyfiles import admin_key_path, api_key, kept_secret, master_key, master_key_path, read_secret, write_secret
from runtime.settings import Settings
from schemas.errors import BadSetting


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", _env_file=None)


def test_the_embedded_default_makes_a_master_key_once_and_keeps_it_for_its_owner_alone(settings):
    first = master_key(settings, make=True)

    assert len(base64.b64decode(first)) == 32
    assert master_key(settings, make=True) == first
    assert stat.S_IMODE(master_key_path(settings).stat().st_mode) == 0o600


def test_a_reading_command_makes_no_master_key(settings):
    with pytest.raises(BadSetting, match="no master key yet"):
        master_key(settings, make=False)

    assert not master_key_path(settings).exists()


def test_beside_other_servers_the_master_key_is_demanded(tmp_path):
    settings = Settings(data_dir=tmp_path, store_url="postgresql://db/n", _env_file=None)

    with pytest.raises(BadSetting, match="NIGHTBELL_MASTER_KEY is demanded"):
        master_key(settings, make=True)


def test_a_given_master_key_is_used_and_not_written_down(tmp_path):
    settings = Settings(data_dir=tmp_path, master_key="abc", _env_file=None)

    assert master_key(settings, make=True) == "abc"
    assert not master_key_path(settings).exists()


def test_a_key_that_others_may_read_is_refused(settings):
    master_key(settings, make=True)
    master_key_path(settings).chmod(0o644)

    with pytest.raises(BadSetting, match="chmod 600"):
        master_key(settings, make=True)


def test_a_blank_key_file_is_refused(tmp_path):
    write_secret(tmp_path / "k", "")

    with pytest.raises(BadSetting, match="blank"):
        read_secret(tmp_path / "k")


def test_a_missing_key_file_is_told_by_its_name(tmp_path):
    with pytest.raises(BadSetting, match="No such file"):
        read_secret(tmp_path / "none")


def test_the_command_lines_key_is_the_settings_then_the_data_folders_then_none(settings, tmp_path):
    assert api_key(settings) is None

    kept_secret(admin_key_path(settings), lambda: "nbk_file")

    assert api_key(settings) == "nbk_file"
    assert api_key(settings.model_copy(update={"api_key": Settings(api_key="nbk_env", _env_file=None).api_key})) == "nbk_env"


def test_of_two_processes_that_make_a_secret_one_wins_and_both_get_it(tmp_path):
    path = tmp_path / "k"

    def late():
        write_secret(path, "first")
        return "second"

    assert kept_secret(path, late) == "first"
    assert os.listdir(tmp_path) == ["k"]


def test_a_secret_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "k"
    write_secret(path, "one")

    write_secret(path, "two")
    assert read_secret(path) == "one"

    write_secret(path, "two", replace=True)
    assert read_secret(path) == "two"
