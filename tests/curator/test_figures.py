"""What views leave of published payloads, and that no declared fact is lost: the figures of docs/context.md."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.curator.figures import BEGIN, END, OCTOKIT, Figures, given, measured, octokit, published, summed, table
from tests.npm.fetch import ROOT

SHOWN = (ROOT / "docs" / "context.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def assert_shown(found: dict[tuple[str, str], Figures]) -> None:
    """The rows of these origins stand in the document as they are measured now."""
    rows = [row for row in table(found).splitlines()[2:] if not row.startswith("| **all of these**")]
    assert [row for row in rows if row not in SHOWN] == [], "python -m tests.curator.figures docs/context.md"


def assert_holds(total: Figures) -> None:
    assert total.pruned_away >= 0.70
    assert total.pruned_kept >= 0.98
    assert total.viewed_away >= 0.95
    assert total.kept_facts == total.viewed_facts > 1000


@pytest.mark.node
@pytest.mark.timeout(240)
def test_views_leave_a_twentieth_of_octokits_examples_and_lose_no_fact():
    found, lost = measured(octokit())

    assert lost == []
    assert_holds(found[OCTOKIT, "github"])
    assert found[OCTOKIT, "github"].events >= 390
    assert_shown(found)


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_published_payloads_keep_every_fact_of_their_views():
    found, lost = measured(published())

    assert lost == []
    assert_fits(found)
    assert_shown(found)
    assert_holds(summed(chain(found.values(), measured(octokit())[0].values())))


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_payloads_that_are_given_keep_every_fact_of_their_views():
    found, lost = measured(given())
    if not found:
        pytest.skip("NBTEST_PAYLOADS_DIR names no folder of payloads")

    assert lost == []
    assert_fits(found)
    assert_shown(found)
    assert_holds(summed(chain(found.values(), measured(chain(octokit(), published()))[0].values())))


def assert_fits(found: dict[tuple[str, str], Figures]) -> None:
    """A view that finds none of its facts is for bodies of another shape than those that normalising gives."""
    assert {family for (_, family), each in found.items() if each.viewed and not each.viewed_facts} == set()
