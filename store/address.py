"""Reads where a store lies: `sqlite:///…` or `postgresql://…`."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from schemas.errors import BadSetting
from store.prepared import POSTGRES, SQLITE


class Address(NamedTuple):
    """A dialect, and its driver's own word for the place: a path, or a DSN."""

    dialect: str
    place: str


def read_address(url: str) -> Address:
    """The address that `url` names; its text is never quoted back, since it may hold a password.  Raises `BadSetting`."""
    try:
        found = make_url(url)
    except ArgumentError as exc:
        raise BadSetting("the store's URL cannot be read: write sqlite:///path or postgresql://host/database") from exc
    backend = found.get_backend_name()
    if backend == SQLITE:
        if not found.database or found.database == ":memory:":
            raise BadSetting("the store needs a file: sqlite:///path")
        return Address(SQLITE, found.database)
    if backend in {POSTGRES, "postgres"}:
        return Address(POSTGRES, "postgresql://" + url.split("://", 1)[1])
    raise BadSetting(f"the store cannot be {backend}: write sqlite:///path or postgresql://host/database")
