"""`when`: a CEL expression that candidates must also satisfy.

It sees `event` (the whole document) and `data`.  CEL (https://cel.dev) always ends; its cost is bounded by the evaluator's
budget of 10,000 iterations and by the caps here.  An error while it runs (a missing key, the budget) is false.
"""

from __future__ import annotations

import re
from typing import Final

from router.pattern import Document, Guard, quoted
from schemas.errors import Invalid

MAX_LENGTH: Final = 2048
MAX_LOOPS: Final = 4
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter|transformList|transformMap)\s*\(")


def compile_when(text: str) -> Guard:
    """The guard that a CEL expression is.  Raises `Invalid` where it is wrong, no yes or no, or may cost too much."""
    from cel_expr_python import cel

    loops = len(_LOOP.findall(text))
    if len(text) > MAX_LENGTH:
        raise Invalid(f"when: {len(text)} characters, the most is {MAX_LENGTH}; in {quoted(text)}")
    if loops > MAX_LOOPS:
        raise Invalid(
            f"when: {loops} loops (all, exists, map, filter), the most is {MAX_LOOPS}: each multiplies or adds a pass over the"
            f" event (cost {10**loops} at ten elements); in {quoted(text)}"
        )
    variables = {"event": cel.Type.DYN, "data": cel.Type.DYN}
    try:
        expression = cel.NewEnv(variables=variables).compile(text)
    except RuntimeError as exc:  # the binding raises nothing finer
        reason = " ".join(str(exc).removesuffix("[INVALID_ARGUMENT]").split())
        raise Invalid(f"when: {reason}; in {quoted(text)}; it sees `event` and `data`") from exc
    kind = expression.return_type().name()
    if kind not in {"BOOL", "DYN"}:
        raise Invalid(f"when: gives {kind}, and must give true or false; in {quoted(text)}")

    def holds(document: Document, _now_ms: int) -> bool:
        try:
            found = expression.eval(data={"event": document, "data": document.get("data")})
            return found.value() is True
        except RuntimeError:  # over its budget of iterations, or a value that CEL has no type for
            return False

    return Guard(f"when: {text}", holds)
