"""Which candidates match: each field decided once per event, then array consistency, then guards."""

from __future__ import annotations

from collections.abc import Sequence

from router.consistency import is_consistent
from router.field import Field
from router.flatten import Found
from router.pattern import Document
from router.tables import Filed
from router.values import MISSING


def verified(  # noqa: C901, PLR0912  # hot: the check of one field is written in place
    candidates: Sequence[Filed], found: Found, document: Document, now_ms: int
) -> set[str]:
    """The rules of the candidates that match."""
    hits: set[str] = set()
    leaves, tangled = found.leaves, found.tangled
    memo: dict[Field, bool] = {}
    combined: set[Filed] = set()
    for branch in candidates:
        if branch.rule in hits:
            continue
        if tangled and _shares_an_array(branch, found):
            # Several values of an array may have led to it; its combinations are tried once.
            if branch in combined:
                continue
            combined.add(branch)
            if not is_consistent(branch.fields, found):
                continue
        else:
            for field in branch.rest:
                held = memo.get(field)
                if held is None:
                    equals = field.equals
                    if equals is None:
                        held = field.holds(leaves)
                    else:  # most fields: `holds`, without the calls
                        leaf = leaves.get(field.path, MISSING)
                        held = leaf in equals if leaf.__class__ is not list else not equals.isdisjoint(leaf)
                    memo[field] = held
                if not held:
                    break
            else:
                held = True
            if not held:
                continue
        if branch.guards and not all(guard.holds(document, now_ms) for guard in branch.guards):
            continue
        hits.add(branch.rule)
    return hits


def _shares_an_array(branch: Filed, found: Found) -> bool:
    return sum(field.path in found.tangled for field in branch.fields) > 1
