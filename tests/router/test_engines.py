"""What only the edges of a value tell: both engines read leaves alike, and say the same where one asks the other."""

import threading
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.field import field_of
from router.matcher import BEST, ENGINES, Matcher
from router.native import key_bytes
from router.operators import equals
from router.pattern import compile_pattern
from router.values import address_of, key_of

ADDRESSES = st.one_of(
    st.text("0123456789.", max_size=16),
    st.text("0123456789abcdefF:", max_size=40),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
)


@given(text=ADDRESSES)
@settings(deadline=None, max_examples=200)
def test_an_address_is_one_to_both(engine, text):
    matcher = Matcher(
        [("4", "t", compile_pattern({"a": [{"cidr": "0.0.0.0/0"}]})), ("6", "t", compile_pattern({"a": [{"cidr": "::/0"}]}))],
        engine=engine,
    )
    found = address_of(text)

    assert matcher.match("t", {"a": text}) == ([] if found is None else [str(found[0])])


HALF = "\ud83d"  # half of a surrogate pair: JSON can say it, UTF-8 cannot


@pytest.mark.parametrize(
    ("element", "leaf", "expected"),
    [
        (HALF, HALF, True),
        (HALF, "?", False),
        ({"prefix": f"a{HALF}"}, f"a{HALF}b", True),
        ({"suffix": HALF}, "🙂", False),
        ({"wildcard": f"*{HALF}*"}, f"x{HALF}y", True),
        ({"anything-but": HALF}, HALF, False),
        ({"equals-ignore-case": "x"}, f"X{HALF}", False),
        ({"exists": True}, HALF, True),
        ("\x00", "\x00", True),
        (2**60, 2**60, True),
        (2**60, float(2**60), False),  # 1.152921504606847e18 is another decimal
        (10**17, 1e17, True),
        (2**60, 2**60 + 1, False),
        (2**60 + 1, 2**60 + 1, True),
        (-(2**70), -(2**70), True),
        (Decimal("1e400"), Decimal("1e400"), True),
        (Decimal("1e400"), Decimal("10e399"), True),
        (Decimal("0.1000000000000000000000001"), Decimal("0.1000000000000000000000001"), True),
        (Decimal("0.1000000000000000000000001"), Decimal("-0.1000000000000000000000001"), False),
        ({"numeric": [">", 0]}, 10**17, True),
        ({"numeric": [">", 0]}, 2**60 + 1, False),
        ({"numeric": [">", 0]}, float("inf"), False),
        ({"numeric": ["=", 0]}, -0.0, True),
        ({"numeric": [">", -1e300, "<", 1e-300]}, 0, True),
        ({"numeric": [">=", 1e300, "<", 1e308]}, 1e300, True),
        ({"numeric": [">", 9e15, "<=", 9.0072e15]}, 9007199254740000, True),
        ({"numeric": [">", 5e-324, "<", 1e-323]}, 5e-324, False),
        ({"anything-but": [1]}, float("inf"), True),
        ({"anything-but": [1]}, True, True),
        (True, 1, False),
        (0, False, False),
        (None, "null", False),
    ],
)
def test_a_leaf_at_the_edge_matches(engine, element, leaf, expected):
    pattern = compile_pattern({"a": [element]})

    assert pattern.matches({"a": leaf}) is expected
    assert Matcher([("r", "t", pattern)], engine=engine).match("t", {"a": leaf}) == (["r"] if expected else [])


def test_what_is_no_json_is_refused(engine):
    with pytest.raises(TypeError, match="not a JSON leaf: bytes"):
        Matcher([("r", "t", compile_pattern({"a": ["x"]}))], engine=engine).match("t", {"a": b"x"})


@given(
    st.lists(
        st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.decimals(allow_nan=False)), max_size=6
    )
)
def test_keys_are_equal_in_bytes_where_they_are_equal(values):
    keys = [key_of(value) for value in values]

    assert [[one == other for one in keys] for other in keys] == [
        [key_bytes(one) == key_bytes(other) for one in keys] for other in keys
    ]


def test_paths_and_fields_that_are_gone_leave_room_for_new_ones(engine):
    matcher = Matcher(engine=engine)
    for number in range(200):
        rule = ("r", "t", compile_pattern({f"path{number}": [f"value{number}"], "b": [number]}))
        matcher = matcher.with_rules(add=[rule])
        assert matcher.match("t", {f"path{number}": f"value{number}", "b": number}) == ["r"]
        assert matcher.match("t", {f"path{number - 1}": f"value{number - 1}", "b": number - 1}) == []


def test_two_threads_match_and_change_at_once(engine):
    rules = [(f"r{at}", "t", compile_pattern({"a": [f"v{at}"], "b": [{"regex": "x+"}]}, extensions=True)) for at in range(50)]
    matcher = Matcher(rules, engine=engine)
    wrong = []

    def work(start):
        mine = matcher
        for at in range(start, start + 300):
            number = at % 50
            if mine.match("t", {"a": f"v{number}", "b": "xx"}) != [f"r{number}"]:
                wrong.append(at)
            mine = mine.with_rules(remove=[(f"r{number}", "t")]).with_rules(add=[rules[number]])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_compiled_engine_is_taken_where_it_is():
    assert ("native" if "native" in ENGINES else "pure") == BEST == Matcher().engine


def test_a_field_is_known_by_what_is_written_only_where_that_says_all():
    field_of("a", [equals(1)])

    assert compile_pattern({"a": [True]}).matches({"a": True})
    assert not compile_pattern({"a": [True]}).matches({"a": 1})
    assert compile_pattern({"a": [1]}).matches({"a": 1.0})
