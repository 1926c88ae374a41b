"""The operators of the pattern language: each turns what a pattern wrote into a test of one leaf.

    element of a leaf array ──▶ compile_element ──▶ Test(operator, wanted, key, holds, access)

A new operator is one function here with its line in `OPERATORS` (or `EXTENSIONS`), and its paragraph in docs/patterns.md.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from operator import eq
from typing import Any, Final

from router.texts import MAX_STARS, MAX_STARS_EXTENDED, ignore_case, literals_of, wildcard, wildcard_parts
from router.values import BITS, FALSE, TRUE, address_of, is_number_key, key_of
from schemas.errors import Invalid

# JSON arrays come as lists, pydantic may give tuples.  Constants, since a union written in place is built at each call.
LISTS: Final = (list, tuple)
NUMBERS: Final = (int, float, Decimal)

Access = tuple[str, Any]
PRESENT: Final[Access] = ("present", None)
WIDEST: Final = 2.0**600  # a range beyond has no access: the cells that index it could overflow


@dataclass(slots=True, eq=False)  # never changed; not frozen, since that makes its making three times as long
class Test:
    """What one element of a leaf array asks of a leaf.

    `holds` takes a leaf's key (`values.key_of`).  Equal `key`s mean the same test.  `access` is the door by which an index
    finds the test from a leaf: every leaf for which the test holds comes through it; `exact` says that no other does.
    """

    operator: str
    wanted: Any
    key: tuple[Hashable, ...]
    holds: Callable[[Any], bool]
    access: Access = PRESENT
    exact: bool = False
    numeric: bool = False  # asks for the exact value of a number that a double cannot hold


ABSENT: Final = Test("exists", False, ("exists", False), lambda _key: False)


def compile_element(element: Any, place: str, extensions: frozenset[str]) -> Test:
    """The test that one element of a leaf array stands for.  Raises `Invalid`, naming the place and what would be right."""
    if isinstance(element, dict):
        return _matcher(element, place, extensions)
    if isinstance(element, LISTS):
        raise Invalid(f"{place}: an array within an array; write the alternatives side by side in one array")
    if isinstance(element, str):
        address = address_of(element)
        return equals(element) if address is None else same_address(element, address)
    if element is not None and not isinstance(element, (bool, *NUMBERS)):
        raise Invalid(f"{place}: wants a JSON value, not {shown(element)}; a date is written in quotes")
    return equals(element)


def _matcher(element: Mapping[str, Any], place: str, extensions: frozenset[str]) -> Test:
    if len(element) != 1:
        raise Invalid(f"{place}: a matcher has exactly one operator, not {len(element)} ({_names(element)})")
    ((operator, wanted),) = element.items()
    compiled = OPERATORS.get(operator)
    if compiled is not None:
        return compiled(wanted, f"{place}.{operator}", extensions)
    if operator in EXTENSIONS:
        need(operator, place, extensions)
        return EXTENSIONS[operator](wanted, f"{place}.{operator}", extensions)
    raise Invalid(f"{place}: unknown operator {operator!r}; known are {', '.join(sorted(OPERATORS))}")


def need(extension: str, place: str, extensions: frozenset[str]) -> None:
    """Refuse what is ours and not EventBridge's, unless the subscription opted in."""
    if extension not in extensions:
        raise Invalid(f"{place}: {extension!r} is an extension; it needs `extensions: [{extension}]` on the subscription")


def _names(element: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, element)) or "none"


def _text(wanted: Any, place: str) -> str:
    if not isinstance(wanted, str):
        raise Invalid(f"{place}: wants a string, not {shown(wanted)}")
    return wanted


def _texts(wanted: Any, place: str) -> tuple[str, ...]:
    found = wanted if isinstance(wanted, LISTS) else [wanted]
    if not found:
        raise Invalid(f"{place}: wants a string or a list of strings, and the list is empty")
    return tuple(_text(text, place) for text in found)


def shown(wanted: Any) -> str:
    """How an error names a value of a pattern: its JSON kind, and itself where short."""
    kinds = ((bool, "a boolean"), (int | float | Decimal, "a number"), (str, "a string"), (Mapping, "an object"))
    if wanted is None:
        return "null"
    kind = next(
        (name for cls, name in kinds if isinstance(wanted, cls)),
        "an array" if isinstance(wanted, LISTS) else type(wanted).__name__,
    )
    return f"{kind} ({wanted!s:.60})" if isinstance(wanted, str | int | float | Decimal) else kind


# ── operators of EventBridge ────────────────────────────────────────────────────────────────────────────────────────────────


def equals(wanted: Any) -> Test:
    """`"x"`, `300`, `true`, `null`: the leaf is this value, of this type."""
    key = key_of(wanted)
    number = is_number_key(key) or (isinstance(key, tuple) and key not in {TRUE, FALSE})
    key_test = ("equals", key)  # most tests are this one: the key and the access are one object, and no function is made
    return Test("equals", wanted, key_test, partial(eq, key), key_test, exact=True, numeric=number)


def same_address(wanted: str, address: tuple[int, int]) -> Test:
    """A string that is an IP address: the leaf is that address, however it is spelled."""
    version, number = address

    def holds(leaf: Any) -> bool:
        return leaf.__class__ is str and address_of(leaf) == address

    return Test("equals", wanted, ("address", address), holds, ("network", (version, BITS[version], number)), exact=True)


def exactly(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"exactly": "x"}`: the leaf is this string, even where it looks like an address."""
    return equals(_text(wanted, place))


def prefix(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"prefix": "ab"}` or `{"prefix": {"equals-ignore-case": "ab"}}`: the leaf is a string that starts so."""
    if isinstance(wanted, dict):
        text = _folded(wanted, place)
        starts = ignore_case(text, ends=False)
        return Test("prefix", wanted, ("prefix-ignore-case", text), lambda leaf: leaf.__class__ is str and starts(leaf))
    text = _text(wanted, place)
    access: Access = ("prefix", text) if text else PRESENT
    return Test(
        "prefix", text, ("prefix", text), lambda leaf: leaf.__class__ is str and leaf.startswith(text), access, exact=bool(text)
    )


def suffix(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"suffix": "yz"}` or `{"suffix": {"equals-ignore-case": "yz"}}`: the leaf is a string that ends so."""
    if isinstance(wanted, dict):
        text = _folded(wanted, place)
        ends = ignore_case(text, starts=False)
        return Test("suffix", wanted, ("suffix-ignore-case", text), lambda leaf: leaf.__class__ is str and ends(leaf))
    text = _text(wanted, place)
    access: Access = ("suffix", text) if text else PRESENT
    return Test(
        "suffix", text, ("suffix", text), lambda leaf: leaf.__class__ is str and leaf.endswith(text), access, exact=bool(text)
    )


def _folded(wanted: Mapping[str, Any], place: str) -> str:
    if list(wanted) != ["equals-ignore-case"]:
        raise Invalid(f'{place}: wants a string or {{"equals-ignore-case": string}}, not an object with {_names(wanted)}')
    return _text(wanted["equals-ignore-case"], f"{place}.equals-ignore-case")


def equals_ignore_case(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"equals-ignore-case": "ab"}`: the leaf is this string, each character in the pattern's lower or upper case."""
    text = _text(wanted, place)
    same = ignore_case(text)
    access: Access = ("folded", text.lower()) if text.isascii() else PRESENT
    key = ("equals-ignore-case", text)
    return Test(
        "equals-ignore-case", text, key, lambda leaf: leaf.__class__ is str and same(leaf), access, exact=text.isascii()
    )


def wildcard_of(wanted: Any, place: str, extensions: frozenset[str]) -> Test:
    r"""`{"wildcard": "a*z"}`: the leaf is a string of this form; `*` stands for any run, `\*` and `\\` for themselves."""
    if isinstance(wanted, dict):
        need("wildcard-ignore-case", place, extensions)
        text = _folded(wanted, place)
        fits = wildcard(_starred(text, place, extensions), folded=True)
        return Test("wildcard", wanted, ("wildcard-ignore-case", text), lambda leaf: leaf.__class__ is str and fits(leaf))
    text = _text(wanted, place)
    parts = _starred(text, place, extensions)
    fits = wildcard(parts)
    return Test(
        "wildcard", text, ("wildcard", text), lambda leaf: leaf.__class__ is str and fits(leaf), _wildcard_access(parts)
    )


def _starred(text: str, place: str, extensions: frozenset[str]) -> list[str]:
    try:
        parts = wildcard_parts(text)
    except ValueError as exc:
        raise Invalid(f"{place}: {exc}") from None
    limit = MAX_STARS_EXTENDED if extensions else MAX_STARS
    stars = len(parts) - 1
    if stars > limit:
        raise Invalid(
            f"{place}: {stars} `*` in one wildcard, the most is {limit}; each is one more search through every value"
            f" (cost {stars}), and EventBridge refuses it as too complex; use prefix, suffix, or several fields"
        )
    return parts


def _wildcard_access(parts: list[str]) -> Access:
    if len(parts) == 1:
        return ("equals", parts[0])
    if parts[0]:
        return ("prefix", parts[0])
    if parts[-1]:
        return ("suffix", parts[-1])
    middle = literals_of(parts)
    return ("contains", max(middle, key=len)) if middle else PRESENT


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda leaf, bound: bool(leaf == bound),
    "<": lambda leaf, bound: bool(leaf < bound),
    "<=": lambda leaf, bound: bool(leaf <= bound),
    ">": lambda leaf, bound: bool(leaf > bound),
    ">=": lambda leaf, bound: bool(leaf >= bound),
}
_INFINITE: Final = float("inf")


def numeric(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"numeric": [">", 0, "<=", 5]}`: the leaf is a number in this range; or with one of = < <= > >= and one bound."""
    if not isinstance(wanted, LISTS) or len(wanted) not in {2, 4}:
        raise Invalid(f'{place}: wants [operator, number] or [">" or ">=", number, "<" or "<=", number], not {wanted!s:.80}')
    operator, bound = wanted[0], _bound(wanted[1], place)
    if operator not in _COMPARE:
        raise Invalid(f"{place}: unknown comparison {shown(operator)}; known are = < <= > >=")
    compare = _COMPARE[operator]
    if len(wanted) == 2:  # noqa: PLR2004  # one comparison, one bound
        low = bound if operator in {"=", ">", ">="} else -_INFINITE
        high = bound if operator in {"=", "<", "<="} else _INFINITE
        access: Access = ("equals", bound) if operator == "=" else _range_access(low, high)

        def holds(leaf: Any) -> bool:
            return is_number_key(leaf) and compare(leaf, bound)

        return Test("numeric", list(wanted), ("numeric", operator, bound), holds, access, exact=operator == "=", numeric=True)
    return _range(wanted, place, bound)


def _range(wanted: Any, place: str, low: float) -> Test:
    first, _, second, _ = wanted
    high = _bound(wanted[3], place)
    if first not in {">", ">="} or second not in {"<", "<="}:
        raise Invalid(f'{place}: a range is [">" or ">=", low, "<" or "<=", high] in this order, not {wanted!s:.80}')
    if not low < high:
        raise Invalid(f"{place}: the range is empty: {low} must be less than {high}")
    above, below = _COMPARE[first], _COMPARE[second]

    def holds(leaf: Any) -> bool:
        return is_number_key(leaf) and above(leaf, low) and below(leaf, high)

    return Test("numeric", list(wanted), ("numeric", first, low, second, high), holds, _range_access(low, high), numeric=True)


def _range_access(low: float, high: float) -> Access:
    fits = all(abs(bound) < WIDEST or bound in {-_INFINITE, _INFINITE} for bound in (low, high))
    return ("range", (low, high)) if fits else PRESENT


def _bound(wanted: Any, place: str) -> float:
    if isinstance(wanted, bool) or not isinstance(wanted, NUMBERS):
        raise Invalid(f"{place}: wants a number to compare with, not {shown(wanted)}")
    key = key_of(wanted)
    if not isinstance(key, int | float):
        raise Invalid(f"{place}: {wanted} cannot be compared exactly (a double cannot hold it); use fewer digits")
    return key


def exists(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"exists": true}` or `{"exists": false}`: a leaf is, or is not, here (an object or an empty array is none)."""
    if wanted is False:
        return ABSENT
    if wanted is not True:
        raise Invalid(f"{place}: wants true or false, not {shown(wanted)}")
    return Test("exists", True, ("exists", True), lambda _leaf: True, PRESENT, exact=True)


def cidr(wanted: Any, place: str, extensions: frozenset[str]) -> Test:
    """`{"cidr": "10.0.0.0/24"}`: the leaf is an IP address of this network; the host bits may be set."""
    text, _, mask = _text(wanted, place).partition("/")
    address = address_of(text)
    if address is None or not mask.isascii() or not mask.isdigit():
        raise Invalid(f"{place}: {wanted!r} is no network; write address/bits, such as 10.0.0.0/24 or 2001:db8::/32")
    version, number = address
    bits, most = int(mask), BITS[version]
    if bits > most or (bits == most and "cidr-host" not in extensions):
        raise Invalid(
            f"{place}: the mask of an IPv{version} network is less than {most}, not {bits}; a single address is exact"
        )
    shift = most - bits
    network = number >> shift

    def holds(leaf: Any) -> bool:
        if leaf.__class__ is not str:
            return False
        found = address_of(leaf)
        return found is not None and found[0] == version and found[1] >> shift == network

    return Test("cidr", wanted, ("cidr", version, bits, network), holds, ("network", (version, bits, network)), exact=True)


def anything_but(wanted: Any, place: str, extensions: frozenset[str]) -> Test:
    """`{"anything-but": …}`: there is a leaf, and it is none of these strings, or numbers, or none of this form."""
    if isinstance(wanted, dict):
        return _anything_but_form(wanted, place, extensions)
    found = list(wanted) if isinstance(wanted, LISTS) else [wanted]
    strings = all(isinstance(value, str) for value in found)
    numbers = all(isinstance(value, NUMBERS) and not isinstance(value, bool) for value in found)
    if not found or not (strings or numbers):
        raise Invalid(
            f"{place}: wants a string, a number, a list of only strings or only numbers, or a form"
            f' ({{"prefix": …}}), not {wanted!s:.80}'
        )
    keys = frozenset(map(key_of, found))
    if numbers and not all(map(is_number_key, keys)):
        raise Invalid(f"{place}: a number in {found!s:.80} cannot be compared exactly (a double cannot hold it)")
    # Test keys of 1 and "1" differ by themselves, but an empty difference between 1 and 1.0 is meant.
    return Test("anything-but", wanted, ("anything-but", keys), lambda leaf: leaf not in keys, numeric=numbers)


_FORMS: Final = ("prefix", "suffix", "equals-ignore-case", "wildcard")


def _anything_but_form(wanted: Mapping[str, Any], place: str, extensions: frozenset[str]) -> Test:
    if len(wanted) != 1:
        raise Invalid(f"{place}: wants exactly one form, not {len(wanted)} ({_names(wanted)})")
    ((form, value),) = wanted.items()
    if form not in _FORMS:
        if "anything-but-nested" in extensions and form in OPERATORS and form != "exists":
            return _unlike(wanted, ("anything-but", form), [OPERATORS[form](value, f"{place}.{form}", extensions)])
        raise Invalid(f"{place}: {form!r} cannot stand inside anything-but; what can are {', '.join(_FORMS)}")
    texts = _texts(value, f"{place}.{form}")
    if form in {"prefix", "suffix"} and "" in texts:
        raise Invalid(f"{place}.{form}: an empty string would exclude every string; leave it out")
    tests = [OPERATORS[form](text, f"{place}.{form}", extensions) for text in texts]
    return _unlike(wanted, ("anything-but", form), tests)


def _unlike(wanted: Any, name: tuple[str, str], tests: list[Test]) -> Test:
    holds = [test.holds for test in tests]
    key = (*name, frozenset(test.key for test in tests))
    return Test("anything-but", dict(wanted), key, lambda leaf: not any(held(leaf) for held in holds))


# ── extensions: ours, behind an opt-in per subscription ─────────────────────────────────────────────────────────────────────


def regex(wanted: Any, place: str, _extensions: frozenset[str]) -> Test:
    """`{"regex": "v[0-9]+"}`: the whole leaf is a string of this RE2 expression (linear time, no look-around)."""
    import re2

    text = _text(wanted, place)
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        fits = re2.compile(text, options=options).fullmatch
    except re2.error as exc:
        raise Invalid(f"{place}: {text!r:.80} is no RE2 expression: {exc}") from exc
    return Test("regex", text, ("regex", text), lambda leaf: leaf.__class__ is str and fits(leaf) is not None)


Compile = Callable[[Any, str, frozenset[str]], Test]

OPERATORS: Final[Mapping[str, Compile]] = {
    "exactly": exactly,
    "prefix": prefix,
    "suffix": suffix,
    "equals-ignore-case": equals_ignore_case,
    "wildcard": wildcard_of,
    "numeric": numeric,
    "exists": exists,
    "cidr": cidr,
    "anything-but": anything_but,
}
EXTENSIONS: Final[Mapping[str, Compile]] = {"regex": regex}
