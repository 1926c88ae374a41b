"""docs/patterns.md is the law: every example on it is executed."""

import json
import re
from pathlib import Path

import pytest

from router.cesql import compile_cesql
from router.filters import compile_filters
from router.guard import compile_when
from router.matcher import Matcher
from router.pattern import ALL_EXTENSIONS, Branch, Pattern, compile_pattern, parse_pattern_text
from schemas.errors import Invalid

PAGE = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(match|refused|filters|cesql|when)([^\n]*)\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE)

COMPILE = {
    "match": lambda text, extensions: compile_pattern(parse_pattern_text(text), extensions=extensions),
    "filters": lambda text, _: compile_filters(json.loads(text)),
    "cesql": lambda text, _: compile_cesql(text),
    "when": lambda text, _: Pattern(text, (Branch(()),), guards=(compile_when(text),)),
}


def _matching():
    return [(kind, frozenset(words.split()), *body.split("\n", 1)) for kind, words, body in EXAMPLES if kind != "refused"]


def test_the_page_has_examples_of_every_kind_and_extension():
    shown = frozenset().union(*(extensions for _, extensions, *_ in _matching()))

    assert {kind for kind, *_ in EXAMPLES} == {"match", "refused", *COMPILE}
    assert shown | {"age"} == ALL_EXTENSIONS
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize(
    ("kind", "extensions", "written", "lines"), _matching(), ids=[written[:70] for _, _, written, _ in _matching()]
)
def test_an_example_matches_as_the_page_says(engine, kind, extensions, written, lines):
    pattern = COMPILE[kind](written, extensions)
    matcher = Matcher([("r", "t", pattern)], engine=engine)

    for line in lines.splitlines():
        answer, event = line.split(maxsplit=1)
        assert pattern.matches(json.loads(event)) is {"yes": True, "no": False}[answer], line
        assert matcher.match("t", json.loads(event)) == {"yes": ["r"], "no": []}[answer], line


@pytest.mark.parametrize("body", [body for kind, _, body in EXAMPLES if kind == "refused"])
def test_a_refused_example_is_refused_with_the_words_of_the_page(body):
    written, message = body.split("\n", 1)

    with pytest.raises(Invalid) as refused:
        compile_pattern(parse_pattern_text(written))

    assert message in refused.value.detail
    assert json.dumps(json.loads(written), ensure_ascii=False) in refused.value.detail


@pytest.mark.parametrize("extension", sorted(ALL_EXTENSIONS - {"$not"}))
def test_an_extension_without_its_opt_in_is_refused(extension):
    examples = [(written, names) for kind, names, written, _ in _matching() if kind == "match" and extension in names]
    written = examples[0][0] if examples else '{"time": [{"age": {"lt": "10m"}}]}'

    with pytest.raises(Invalid):
        compile_pattern(parse_pattern_text(written))
