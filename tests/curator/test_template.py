"""Templates are the operator's; what the event says is data to them."""

from __future__ import annotations

import pytest

from curator.template import check_template, rendered
from schemas.errors import Invalid


def test_an_event_cannot_smuggle_template_code():
    assert (
        rendered("{{ context.title }}", {"context": {"title": "{{ 7 * 7 }}{% for x in y %}"}}) == "{{ 7 * 7 }}{% for x in y %}"
    )


def test_members_named_like_methods_are_members():
    assert rendered("{{ context.items }} {{ context.keys }}", {"context": {"items": "two"}}) == "two "


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}", "{{ context.__class__ }}", "{{ context.pop('a') }}", "{{ context.title.format(context) }}",
        "{{ cycler.__init__ }}", "{{ range(1000000000) }}", "{{ lipsum() }}", "{{ self.__init__ }}",
    ],
)  # fmt: skip
def test_a_template_reaches_nothing_but_values(text):
    found = rendered(text, {"context": {"title": "T", "a": 1}})

    assert found is None or not found.strip()


@pytest.mark.parametrize(
    "text", ["{{ 'x' * 1000000000 }}", "{{ 9 ** 9 ** 9 }}", "{{ context.title * 1000000000 }}", "{{ '%1000000000d' % 1 }}"]
)
def test_a_template_cannot_fill_memory(text):
    assert rendered(text, {"context": {"title": "T"}}) is None


def test_a_long_rendering_is_cut():
    assert (
        len(rendered("{% for a in context.x %}{{ context.t }}{% endfor %}", {"context": {"x": [1] * 1000, "t": "y" * 1000}}))
        == 200_000
    )


def test_a_bad_template_is_refused_with_its_line():
    with pytest.raises(Invalid) as refused:
        check_template("one\n{% if %}")

    assert "line 2" in refused.value.detail
