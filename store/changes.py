"""What an apply would change, field by field, with no secret in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SECRET_MARK = "(secret)"  # noqa: S105 - what stands where a secret is
CHANGED_SECRET_MARK = "(another secret)"  # noqa: S105 - as above


class Action(StrEnum):
    """What becomes of an object."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"
    DRAIN = "drain"  # deleted; what is queued for it is still delivered
    KEEP = "keep"  # to be deleted, once what still needs it is gone


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field: `before` is None where it was not there, `after` where it is no more."""

    field: str
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        return {"field": self.field, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """What becomes of one object.  `made_secret` is the signing secret that was made for it: shown here, and never again."""

    kind: str
    name: str
    action: Action
    fields: tuple[FieldChange, ...] = ()
    notes: tuple[str, ...] = ()
    made_secret: str | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        found: dict[str, Any] = {"kind": self.kind, "name": self.name, "action": self.action.value}
        found["fields"] = [change.field for change in self.fields]
        found["diff"] = [change.as_json() for change in self.fields]
        found["notes"] = list(self.notes)
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes of one apply, in the order sources, agents, subscriptions."""

    changes: tuple[ObjectChange, ...]
    dry_run: bool

    def as_json(self) -> dict[str, Any]:
        """For people and programs; `secrets` are those that were made, by agent."""
        secrets = {change.name: change.made_secret for change in self.changes if change.made_secret is not None}
        counts = {action.value: sum(change.action is action for change in self.changes) for action in Action}
        return {
            "dry_run": self.dry_run,
            "changes": [change.as_json() for change in self.changes],
            "counts": counts,
            "secrets": secrets,
        }


def differences(before: Mapping[str, Any], after: Mapping[str, Any], *, within: str = "") -> Iterator[FieldChange]:
    """The fields in which two specs differ, by dotted path; mappings are compared inside, lists as wholes."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        path = f"{within}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping) and path != "pattern":
            yield from differences(old, new, within=f"{path}.")
        elif old != new:
            yield FieldChange(path, old, new)
