"""`nightbell.yaml`, one file or several: read, its variables filled in, every flaw with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.documents import DOCUMENT_VERSION, SECTIONS, Checks, pointer, read_document
from control.problems import Flaw, Flawed
from control.yamlfile import Place, Placed, PlacedFlaw, read_yaml
from schemas.errors import Invalid

_VARIABLE = re.compile(r"\$(?:\$|\{([^}]*)\})")
_VARIABLE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# A blank one of these would accept everything or nothing: an unset variable shall not look like a secret.
_SECRETS = re.compile(r"^/(?:sources/[^/]*/(?:secrets/\d+|password)|agents/[^/]*/secret)$")


class FlawedFile(Invalid):
    """The configuration has flaws; nothing was applied."""

    def __init__(self, flaws: Iterable[PlacedFlaw]) -> None:
        """Keep `flaws`, in the order of their places."""
        self.flaws = tuple(sorted(set(flaws), key=lambda flaw: (flaw.place, flaw.message)))
        super().__init__("\n".join(map(str, self.flaws)))


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What the files say together: the document for `POST /v1/apply`, its secrets in the clear, and where each part stands."""

    document: dict[str, Any]
    places: Mapping[str, Place]

    def placed(self, flaws: Iterable[Flaw]) -> FlawedFile:
        """The flaws that somebody found in the document, at their places in the files."""
        whole = Placed(None, dict(self.places))
        return FlawedFile(PlacedFlaw(whole.place_of(flaw.place), _told(flaw)) for flaw in flaws)


def load_config(paths: Iterable[Path], *, environment: Mapping[str, str], checks: Checks | None) -> ConfigFile:
    """The files' document.  Raises `FlawedFile` with every flaw of all of them, `Invalid` where a file cannot be read.

    `checks` judges patterns, views, providers and addresses; without them only the shape is looked at.
    """
    return parse_config([(str(path), _text_of(path)) for path in paths], environment=environment, checks=checks)


def parse_config(texts: Iterable[tuple[str, str]], *, environment: Mapping[str, str], checks: Checks | None) -> ConfigFile:
    """The document that these texts (name, YAML) make together.  Raises `FlawedFile`."""
    files = [read_yaml(text, file=name) for name, text in texts]
    flaws = [flaw for file in files for flaw in file.flaws]
    unfilled: list[str] = []
    for file in files:
        wrong: dict[str, list[str]] = {}
        file.value = _filled(file.value, "", environment=environment, wrong=wrong)
        flaws += [PlacedFlaw(file.place_of(where), message) for where, told in wrong.items() for message in told]
        unfilled += wrong
    config = _joined(files, flaws=flaws)
    if checks is not None and all(file.value is not None for file in files):
        # What holds a value that is missing may look wrong only for that.
        found = [flaw for flaw in _flaws_of(config.document, checks) if not any(_is_within(w, flaw.place) for w in unfilled)]
        flaws += config.placed(found).flaws
    if flaws:
        raise FlawedFile(flaws)
    return config


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise Invalid(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise Invalid(f"{path} is not UTF-8 (byte {exc.start})") from exc


def _flaws_of(document: Mapping[str, Any], checks: Checks) -> tuple[Flaw, ...]:
    try:
        read_document(document, checks=checks)
    except Flawed as exc:
        return exc.flaws
    return ()


def _told(flaw: Flaw) -> str:
    owner = "/".join(flaw.place.split("/")[1:3])
    return f"{owner}: {flaw.message}" if owner else flaw.message


def _joined(files: list[Placed], *, flaws: list[PlacedFlaw]) -> ConfigFile:
    document: dict[str, Any] = {"version": DOCUMENT_VERSION, **{section: {} for section in SECTIONS}}
    places: dict[str, Place] = {"": files[0].place_of("")} if files else {"": Place("", 1, 1)}
    for file in files:
        if isinstance(file.value, dict):
            _join(file, document=document, places=places, flaws=flaws)
        elif file.value is not None:
            flaws.append(PlacedFlaw(file.place_of(""), "the file is a mapping: version, sources, agents, subscriptions"))
    return ConfigFile(document, places)


def _join(file: Placed, *, document: dict[str, Any], places: dict[str, Place], flaws: list[PlacedFlaw]) -> None:
    taken: set[str] = set()
    if file.value.get("version") != DOCUMENT_VERSION:
        flaws.append(PlacedFlaw(file.place_of("/version"), f"write `version: {DOCUMENT_VERSION}`"))
    for name, value in file.value.items():
        where = pointer(name)
        if name == "version" or value is None:
            continue
        if name not in SECTIONS or not isinstance(value, dict):
            document[name] = value  # its reader says what is wrong with it
        else:
            taken |= _join_section(where, value, file=file, into=document[name], places=places, flaws=flaws)
    for where, place in file.places.items():
        if not any(_is_within(where, other) for other in taken):
            places.setdefault(where, place)


def _join_section(
    where: str, value: Any, *, file: Placed, into: dict[str, Any], places: Mapping[str, Place], flaws: list[PlacedFlaw]
) -> set[str]:
    taken = set()
    if not isinstance(into, dict):
        return taken
    for name, spec in value.items():
        inner = where + pointer(name)
        if name in into:
            flaws.append(
                PlacedFlaw(file.place_of(inner), f"`{name}` is already at {places[inner]}: a name stands once in all files")
            )
            taken.add(inner)
        else:
            into[name] = spec
    return taken


def _filled(value: Any, where: str, *, environment: Mapping[str, str], wrong: dict[str, list[str]]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, where + pointer(key), environment=environment, wrong=wrong) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, f"{where}/{index}", environment=environment, wrong=wrong) for index, inner in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value
    text, told = interpolated(value, environment)
    if not told and _SECRETS.match(where) and not text.strip():
        told = ["the variable is set, and blank: a blank secret would prove nothing"]
    if told:
        wrong[where] = told
    return text


def _is_within(where: str, other: str) -> bool:
    return where == other or where.startswith(f"{other}/")


def interpolated(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """`text` with each `${NAME}` replaced from `environment` and each `$$` by a dollar sign, and what was wrong with it."""
    wrong: list[str] = []

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "$"
        if not _VARIABLE_NAME.match(name):
            wrong.append(f"`${{{name}}}` names no variable: write ${{NAME}}, or $${{…}} for a plain dollar sign")
        elif name not in environment:
            wrong.append(f"the variable {name} is not set: export it, or write $${{{name}}} for the text itself")
        return environment.get(name, "")

    return _VARIABLE.sub(filled, text), wrong
