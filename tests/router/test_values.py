"""Leaves: typed keys, exact numbers, addresses."""

from decimal import Decimal

import pytest

from router.matcher import Matcher
from router.pattern import compile_pattern, parse_pattern_text
from router.values import FALSE, TRUE, address_of, is_number_key, key_of, parse_exact
from schemas.errors import Invalid


def test_values_of_different_types_have_different_keys():
    values = [
        "1",
        1,
        "true",
        True,
        False,
        0,
        "",
        None,
        "null",
        9007199254740993,
        Decimal("0.1000000000000000055511151231257827"),
    ]

    assert len({key_of(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("one", "other"), [(300, 300.0), (0, -0.0), (10**29, 1e29), (Decimal("0.1"), 0.1), (2**53, float(2**53))]
)
def test_one_number_has_one_key_however_it_is_written(one, other):
    assert key_of(one) == key_of(other)
    assert is_number_key(key_of(one))


@pytest.mark.parametrize(
    "value", [2**53 + 1, 12345678901234567890, Decimal("1e400"), float("inf"), float("nan"), True, None, "1"]
)
def test_what_a_double_cannot_hold_is_no_number_for_ranges(value):
    assert not is_number_key(key_of(value))


def test_a_value_that_is_no_leaf_is_an_error():
    with pytest.raises(TypeError):
        key_of({})


def test_booleans_have_keys_of_their_own():
    assert (key_of(True), key_of(False)) == (TRUE, FALSE)
    assert TRUE != FALSE


def test_exact_reading_loses_no_digit():
    read = parse_exact("[9007199254740993, 0.1, 0.1000000000000000055511151231257827, 1e400, 3e2, 1e99999999999999999999]")

    assert read == [
        9007199254740993,
        0.1,
        Decimal("0.1000000000000000055511151231257827"),
        Decimal("1e400"),
        300.0,
        float("inf"),
    ]
    assert parse_exact("1" * 5000) == Decimal("1" * 5000)


@pytest.mark.parametrize("text", ["", "{", "[" * 3000 + "]" * 3000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_exact(text)
    with pytest.raises(Invalid):
        parse_pattern_text(text)


def test_a_pattern_text_is_an_object():
    with pytest.raises(Invalid, match="a pattern is a JSON object, not an array"):
        parse_pattern_text("[]")


def test_a_document_that_cannot_be_read_exactly_is_judged_by_doubles(engine):
    matcher = Matcher([("r", "t", compile_pattern({"a": [1e29]}))], engine=engine)

    def exact():
        raise ValueError("nested too deep")

    assert matcher.match("t", {"a": 1e29}, exact=exact) == ["r"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", (4, 0x0A000001)),
        ("010.000.0.1", (4, 0x0A000001)),
        ("255.255.255.255", (4, 2**32 - 1)),
        ("::", (6, 0)),
        ("::1", (6, 1)),
        ("2001:DB8::", (6, 0x20010DB8 << 96)),
        ("256.0.0.1", None),
        ("10.0.0", None),
        ("10.0.0.1.1", None),
        ("12:30", None),
        (":", None),
        ("", None),
        ("::ffff:10.0.0.1", None),
        ("fe80::1%eth0", None),
        ("1:2:3:4:5:6:7:8:9", None),
    ],
)
def test_an_address_is_read_in_any_spelling_and_nothing_else_is(text, address):
    assert address_of(text) == address
