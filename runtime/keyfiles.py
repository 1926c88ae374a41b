"""Keys that the embedded default makes for itself, in files of the data folder that only their owner reads."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from runtime.settings import Settings
from schemas.errors import BadSetting

MASTER_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def master_key_path(settings: Settings) -> Path:
    """Where the embedded default keeps the master key."""
    return settings.data_dir / "master.key"


def admin_key_path(settings: Settings) -> Path:
    """Where the embedded default keeps the admin's API key, and the command line finds it."""
    return settings.data_dir / "admin.key"


def address_path(settings: Settings) -> Path:
    """Where a running server writes the URL of its API, so that the command line finds a port that the system chose."""
    return settings.data_dir / "api.url"


def master_key(settings: Settings, *, make: bool) -> str:
    """The master key in base64: the setting's, else the data folder's, made there first where `make`.

    Raises `BadSetting` where there is none: beside other servers a key of one machine would lock the others out.
    """
    if settings.master_key is not None:
        return settings.master_key.get_secret_value()
    if not settings.is_embedded:
        raise BadSetting(
            "NIGHTBELL_MASTER_KEY is demanded beside Kafka or PostgreSQL: all processes share one (`openssl rand -base64 32`)"
        )
    path = master_key_path(settings)
    if not path.exists() and not make:
        raise BadSetting(f"there is no master key yet: {path} is made by the first `nightbell serve`")
    return kept_secret(path, _fresh_master_key)


def api_key(settings: Settings) -> str | None:
    """The API key of the command line: the setting's, else the data folder's, else none."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = admin_key_path(settings)
    return read_secret(path) if path.exists() else None


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`; where there is no such file, `make`'s is written to it first, mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        return read_secret(path)
    write_secret(path, make())
    return read_secret(path)  # another process may have won: its secret is the one that is kept


def write_secret(path: Path, secret: str, *, replace: bool = False) -> None:
    """Write the file whole or not at all, mode 0600, on the disk when this returns; an existing one stays unless `replace`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return


def read_secret(path: Path) -> str:
    """The secret in `path`.  Raises `BadSetting` where others than its owner may read it, or where it is blank."""
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except OSError as exc:
        raise BadSetting(f"cannot read {path}: {exc.strerror}") from exc
    if mode & _OTHERS:
        raise BadSetting(f"others may read {path} (mode {stat.S_IMODE(mode):04o}): run chmod 600 {path}")
    if not text:
        raise BadSetting(f"{path} is blank")
    return text


def _fresh_master_key() -> str:
    return base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()
