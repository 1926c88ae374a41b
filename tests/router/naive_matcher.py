"""The pattern language once more, as plainly as it can be said: the oracle that the indexed matcher is held against.

No index, no interning, no shared code with `router`: a rule is expanded, an event is listed leaf by leaf, and every combination is
tried.  Extensions and exact numbers are not in it.
"""

import ipaddress
import itertools
import re

OPERATORS = {"exactly", "prefix", "suffix", "equals-ignore-case", "wildcard", "numeric", "exists", "cidr", "anything-but"}


def branches(rule, path=()):
    """The rule without `$or`: a list of {path: alternatives}."""
    drafts = [{}]
    for name, value in rule.items():
        if name == "$or" and isinstance(value, list) and len(value) > 1 and all(
            isinstance(option, dict) and not OPERATORS & set(option) for option in value
        ):  # fmt: skip
            drafts = [{**draft, **chosen} for option in value for draft in drafts for chosen in branches(option, path)]
        elif isinstance(value, dict):
            drafts = [{**draft, **below} for draft in drafts for below in branches(value, (*path, name))]
        else:
            drafts = [{**draft, ".".join((*path, name)): value} for draft in drafts]
    return drafts


def leaves(value, path=(), around=(), ids=None):
    """Every leaf as (path, value, {array: element}); only elements that are objects or arrays are counted as chosen."""
    ids = itertools.count() if ids is None else ids
    if isinstance(value, dict):
        for name, below in value.items():
            yield from leaves(below, (*path, name), around, ids)
    elif isinstance(value, list):
        array = next(ids)
        for at, below in enumerate(value):
            nested = isinstance(below, dict | list)
            yield from leaves(below, path, (*around, (array, at)) if nested else around, ids)
    else:
        yield ".".join(path), value, dict(around)


def in_any_case(wanted, start=r"\A", end=r"\Z"):
    forms = "".join(f"(?:{re.escape(c.lower())}|{re.escape(c.upper())})" for c in wanted)
    return re.compile(start + forms + end, re.DOTALL)


def as_regex(wildcard):
    parts = re.findall(r"\\.|[^\\]", wildcard, re.DOTALL)
    return re.compile("".join(".*" if part == "*" else re.escape(part[-1]) for part in parts), re.DOTALL)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(value, wanted):
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None or value is None:
        return value is wanted
    if is_number(value) != is_number(wanted):
        return False
    return value == wanted or (isinstance(value, str) and address(value) is not None and address(value) == address(wanted))


def address(text):
    try:
        return ipaddress.ip_address(re.sub(r"\b0+(?=\d)", "", text) if "." in text and ":" not in text else text)
    except ValueError:
        return None


def holds(element, value):
    """Whether one element of a leaf array takes one leaf."""
    if not isinstance(element, dict):
        return same(value, element)
    ((operator, wanted),) = element.items()
    if operator == "anything-but":
        if isinstance(wanted, dict):
            ((form, texts),) = wanted.items()
            return not any(holds({form: text}, value) for text in (texts if isinstance(texts, list) else [texts]))
        plain = wanted if isinstance(wanted, list) else [wanted]
        return not any(is_number(value) == is_number(one) and not isinstance(value, bool) and value == one for one in plain)
    if operator == "exists":
        return wanted
    if operator == "numeric":
        compare = {"=": "__eq__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
        pairs = zip(wanted[::2], wanted[1::2], strict=True)
        return is_number(value) and all(getattr(float(value), compare[sign])(float(bound)) for sign, bound in pairs)
    return isinstance(value, str) and holds_text(operator, wanted, value)


def holds_text(operator, wanted, value):
    """The operators that take strings only."""
    if operator == "cidr":
        found = address(value) if "." in value or ":" in value else None
        return found is not None and found in ipaddress.ip_network(wanted, strict=False)
    if isinstance(wanted, dict):
        ends = {"prefix": (r"\A", ""), "suffix": ("", r"\Z")}[operator]
        return in_any_case(wanted["equals-ignore-case"], *ends).search(value) is not None
    if operator in {"equals-ignore-case", "wildcard"}:
        form = in_any_case(wanted) if operator == "equals-ignore-case" else as_regex(wanted)
        return form.fullmatch(value) is not None
    return {"exactly": value == wanted, "prefix": value.startswith(wanted), "suffix": value.endswith(wanted)}[operator]


def agree(one, other):
    return all(other.get(array, element) == element for array, element in one.items())


def satisfied(fields, listed, chosen):
    """Whether the fields, in the order of their paths, hold in one choice of array elements."""
    if not fields:
        return True
    (path, alternatives), *rest = fields
    here = [(value, around) for at, value, around in listed if at == path and agree(chosen, around)]
    if {"exists": False} in alternatives and not here and satisfied(rest, listed, chosen):
        return True
    wanted = [element for element in alternatives if element != {"exists": False}]
    return any(
        satisfied(rest, listed, {**chosen, **around})
        for value, around in here
        if any(holds(element, value) for element in wanted)
    )


def matches(rule, event):
    """Whether the rule matches the event."""
    listed = list(leaves(event))
    return any(satisfied(sorted(branch.items()), listed, {}) for branch in branches(rule))
