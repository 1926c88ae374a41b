"""Operators' own text templates, in a sandbox: what the event says is data to them, never template."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateRuntimeError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.errors import Invalid

MAX_RENDERED_CHARS = 200_000


class _Environment(ImmutableSandboxedEnvironment):
    """No attributes, no calls of what the event holds, no loops without an end."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002 - jinja2's signature
        return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - jinja2's signature
        # "x" * 10**9 and 9**9**9 would fill memory at compile time already.
        if isinstance(left, int | float) and isinstance(right, int | float) and operator != "**":
            return left * right if operator == "*" else left % right
        raise TemplateRuntimeError(f"{operator} is for numbers here, and ** is not there")

    def getattr(self, obj: Any, attribute: str) -> Any:
        # `context.items` is the member of that name, never the method of the dict that holds it.
        return obj[attribute] if isinstance(obj, dict) and attribute in obj else self.undefined(obj=obj, name=attribute)


_environment = _Environment(undefined=Undefined, autoescape=False, keep_trailing_newline=False)
_environment.globals.clear()  # `range` and `lipsum` can make gigabytes


def check_template(text: str) -> None:
    """Raise Invalid, with the line, where `text` is no template."""
    try:
        compiled(text)
    except TemplateError as exc:
        line = f" (line {exc.lineno})" if hasattr(exc, "lineno") else ""
        raise Invalid(f"context.template{line}: {exc.message}") from exc


@lru_cache(maxsize=512)
def compiled(text: str) -> Template:
    """The compiled template."""
    return _environment.from_string(text)


def rendered(text: str, values: dict[str, Any]) -> str | None:
    """The template's text, cut at 200,000 characters; None where it fails on these values."""
    parts: list[str] = []
    size = 0
    try:
        for part in compiled(text).generate(values):
            parts.append(part)
            size += len(part)
            if size > MAX_RENDERED_CHARS:
                break
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return None
    return "".join(parts)[:MAX_RENDERED_CHARS]
