"""Random patterns and events over a small vocabulary, so that they meet."""

from hypothesis import strategies as st

NAMES = ["a", "b", "c", "d"]
TEXTS = [
    "",
    "x",
    "X",
    "xy",
    "xyz",
    "yx",
    "ab*c",
    "10.0.0.1",
    "10.0.0.9",
    "10.1.0.1",
    "2001:db8::1",
    "é",
    "É",
    "ß",
    "SS",
    "K",
    "k",
    "12:30",
]
NUMBERS = [0, 1, 1.0, 2, 2.5, -1, 300, 3e2, 1e9]

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from(NUMBERS)
scalars = st.one_of(texts, numbers, st.booleans(), st.none())
bounds = [0, 1, 2, 2.5, 300]


def one_key(name, values):
    return values.map(lambda value: {name: value})


def some(values):
    return st.one_of(values, st.lists(values, min_size=1, max_size=3))


wildcards = st.sampled_from(["*", "x*", "*x", "x*z", "*y*", "ab\\*c", "", "*x*y*", "é*"])
ranges = st.one_of(
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), st.sampled_from(bounds)).map(list),
    st.tuples(
        st.sampled_from([">", ">="]), st.sampled_from([0, 1]), st.sampled_from(["<", "<="]), st.sampled_from([2, 300])
    ).map(list),
)
networks = st.sampled_from(["10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.7/29", "2001:db8::/32"])
non_empty = texts.filter(bool)
elements = st.one_of(
    scalars,
    one_key("exactly", texts),
    one_key("prefix", texts),
    one_key("suffix", texts),
    one_key("prefix", one_key("equals-ignore-case", texts)),
    one_key("suffix", one_key("equals-ignore-case", texts)),
    one_key("equals-ignore-case", texts),
    one_key("wildcard", wildcards),
    one_key("numeric", ranges),
    one_key("exists", st.booleans()),
    one_key("cidr", networks),
    one_key("anything-but", some(texts)),
    one_key("anything-but", some(numbers)),
    one_key("anything-but", one_key("prefix", some(non_empty))),
    one_key("anything-but", one_key("suffix", some(non_empty))),
    one_key("anything-but", one_key("equals-ignore-case", some(texts))),
    one_key("anything-but", one_key("wildcard", some(wildcards))),
)
leaf_arrays = st.lists(elements, min_size=1, max_size=3)
names = st.sampled_from([*NAMES, "a.b"])


def _objects(below):
    return st.dictionaries(names, below, min_size=1, max_size=3)


def _with_or(objects):
    alternatives = st.lists(objects, min_size=2, max_size=3)
    return st.one_of(objects, st.tuples(objects, alternatives).map(lambda pair: {**pair[0], "$or": pair[1]}))


flat = _objects(leaf_arrays)
patterns = _with_or(_objects(st.one_of(leaf_arrays, leaf_arrays, _with_or(flat), _objects(flat))))

event_values = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(names, below, max_size=3)),
    max_leaves=8,
)
events = st.dictionaries(names, event_values, max_size=4)
