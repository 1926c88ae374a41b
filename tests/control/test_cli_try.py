import json

import pytest

from tests.fakes.command_line import NOBODY as NOBODY_URL
from tests.fakes.command_line import FakeApi, many, means, one, run

# The tokenizer's wheel reads its vocabulary by a function that importlib.resources deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")
NOBODY = means(NOBODY_URL)[0]
ISSUE = {
    "type": "github.issues.opened",
    "source": "github-acme",
    "data": {"action": "opened", "issue": {"number": 42, "title": "Checkout charges twice", "labels": [{"name": "bug"}]}},
}
WANTED = {"type": ["github.issues.opened"], "data": {"issue": {"labels": {"name": ["bug"]}}}}
UNWANTED = {"type": ["github.issues.opened"], "data": {"issue": {"labels": {"name": ["docs"]}}}}


@pytest.fixture(scope="module")
def server():
    with FakeApi().running() as running:
        yield running


@pytest.fixture
def api(server):
    server.answers, server.asked = {}, []
    return server


@pytest.fixture
def files(tmp_path):
    for name, document in {"event": ISSUE, "yes": WANTED, "no": UNWANTED}.items():
        (tmp_path / name).write_text(json.dumps(document))
    return tmp_path


# match


def test_match_says_yes_with_0_and_no_with_1(files):
    yes = run(NOBODY, "match", "-p", files / "yes", "-e", files / "event", "--json")
    no = run(NOBODY, "match", "-p", files / "no", "-e", files / "event", "--json")

    assert one(yes)["matched"] is True
    assert (no.exit_code, many(no)[0]["matched"]) == (1, False)


def test_match_names_the_field_that_did_not_match(files):
    result = run(NOBODY, "match", "-p", files / "no", "-e", files / "event")

    assert "did not match" in result.stdout
    assert "data.issue.labels.name" in result.stdout
    assert "docs" in result.stdout
    assert "bug" in result.stdout


def test_match_takes_json_in_place_and_stdin():
    result = run(NOBODY, "match", "-p", json.dumps(WANTED), "-e", "-", "--json", stdin=json.dumps(ISSUE))

    assert one(result)["matched"] is True


def test_match_asks_the_api_for_a_kept_event(api):
    api.answers["GET /v1/events/evt_a"] = ISSUE

    assert run(api, "match", "-p", '{"type": ["github.issues.opened"]}', "-e", "evt_a").exit_code == 0
    assert run(api, "match", "-p", '{"type": ["x"]}', "-e", "evt_b").exit_code == 3


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ('{"type": [{"prefx": "x"}]}', "prefx"),
        ('{"type": "x"}', "type"),
        ("[1]", "cannot read"),
        ("{", "not JSON"),
        ("/nowhere/at/all", "cannot read"),
    ],
)
def test_a_bad_pattern_is_bad_input_and_quoted(files, pattern, said):
    result = run(NOBODY, "match", "-p", pattern, "-e", files / "event", "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_match_without_its_two_sides_is_bad_input():
    assert run(NOBODY, "match", "-p", "{}").exit_code == 2


def test_match_answers_line_by_line(tmp_path):
    lines = [
        {"pattern": WANTED, "event": ISSUE},
        {"pattern": UNWANTED, "event": ISSUE},
        {"pattern": {"type": [{"prefx": "x"}]}, "event": ISSUE},
        {"event": ISSUE},
        7,
    ]
    (tmp_path / "lines").write_text("\n".join(map(json.dumps, lines)) + "\n\nnonsense\n")

    result = run(NOBODY, "match", "--jsonl", tmp_path / "lines")

    found = many(result)
    assert result.exit_code == 0
    assert found[:2] == [{"matched": True}, {"matched": False}]
    assert [list(line) for line in found[2:]] == [["error"]] * 4
    assert "prefx" in found[2]["error"]


def test_numbers_that_no_double_holds_are_told_apart(tmp_path):
    (tmp_path / "lines").write_text('{"pattern": {"n": [9007199254740993]}, "event": {"n": 9007199254740992}}\n')

    assert many(run(NOBODY, "match", "--jsonl", tmp_path / "lines")) == [{"matched": False}]


# curate


def test_curate_gives_the_bytes_of_a_view_and_their_tokens(files):
    result = one(run(NOBODY, "curate", "-e", files / "event", "--view", "{title: data.issue.title}", "--json"))

    assert result["context"] == {"title": "Checkout charges twice"}
    assert 0 < result["tokens"] < result["raw_tokens"]
    assert result["left_out"] == []


def test_curate_without_a_view_uses_the_default_one(files):
    result = run(NOBODY, "curate", "-e", files / "event")

    assert "Checkout charges twice" in result.stdout
    assert "tokens" in result.stdout


def test_curate_takes_the_view_and_budget_of_a_subscription(api, files):
    api.answers["GET /v1/subscriptions/bugs"] = {
        "name": "bugs",
        "context": {"view": "{n: data.issue.number}", "max_tokens": 50},
    }

    assert one(run(api, "curate", "-s", "bugs", "-e", files / "event", "--json"))["context"] == {"n": 42}
    assert run(api, "curate", "-s", "nothing", "-e", files / "event").exit_code == 3


def test_curate_asks_the_api_for_a_kept_event(api):
    api.answers["POST /v1/curate"] = {"context": {"n": 42}, "tokens": 5, "raw_tokens": 80, "digest": "d", "left_out": ["/body"]}

    result = run(api, "curate", "-s", "bugs", "-e", "evt_a")

    assert api.asked[0]["body"] == {"event": "evt_a", "subscription": "bugs"}
    assert result.stdout.splitlines() == ['{"n":42}', "5 tokens; the whole body has 80", "left out: /body"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--view", "{title: "], "view"),
        (["--view", "a", "-s", "b"], "not both"),
        (["--max-tokens", "0"], "max-tokens"),
    ],
)
def test_curate_refuses_what_makes_no_sense(files, words, said):
    result = run(NOBODY, "curate", "-e", files / "event", *words, "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("event", "said"), [('{"data": {}}', "`type`"), ("[]", "JSON object"), ('{"type": "a.b", "time": "noon"}', "`time`")]
)
def test_curate_refuses_what_is_no_event(event, said):
    result = run(NOBODY, "curate", "-e", event) if event.startswith("{") else run(NOBODY, "curate", "-e", "-", stdin=event)

    assert result.exit_code == 2
    assert said in result.stderr


def test_curate_answers_line_by_line(tmp_path):
    (tmp_path / "lines").write_text(json.dumps({"event": ISSUE}) + '\n{"event": {}}\n{}\nnonsense\n')

    found = many(run(NOBODY, "curate", "--jsonl", tmp_path / "lines"))

    assert sorted(found[0]) == ["context", "left_out", "raw_tokens", "tokens"]
    assert [list(line) for line in found[1:]] == [["error"]] * 3


def test_the_same_event_gives_the_same_bytes(files):
    first, second = (run(NOBODY, "curate", "-e", files / "event", "--json").stdout for _ in range(2))

    assert first == second
