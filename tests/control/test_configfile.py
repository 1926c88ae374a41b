import json
from pathlib import Path

import jsonschema
import pytest

from control.configfile import FlawedFile, interpolated, load_config, parse_config
from control.configschema import config_schema, config_schema_text
from control.documents import Checks
from control.problems import Flaw
from schemas.errors import Invalid

ROOT = Path(__file__).parents[2]


def refuse_pattern(pattern):
    if "bad" in pattern:
        raise Invalid("`bad` is no field of an event", place="bad")


def refuse_view(view):
    if view == "]":
        raise Invalid("the view ends in the middle")


def refuse_source(name, spec):
    if any(not secret.get_secret_value() for secret in spec.secrets):
        raise Invalid("a secret is blank")
    if spec.provider == "githup":
        raise Invalid("there is no provider `githup`; did you mean `github`?", place="provider")


CHECKS = Checks(
    source=refuse_source,
    pattern=refuse_pattern,
    view=refuse_view,
    url=lambda url, *, allow_private: None,
    protocol=lambda spec: None,
)

GOOD = """\
version: 1
sources:
  github-acme:
    provider: github
    secrets: ["${GITHUB_WEBHOOK_SECRET}"]
agents:
  triage:
    url: http://127.0.0.1:9000/wake
    allow_private: true
subscriptions:
  bugs-to-triage:
    agent: triage
    pattern:
      type: [github.issues.opened]
      data: {issue: {labels: {name: [bug]}}}
    context:
      view: "{title: data.issue.title}"
    retry: {max_attempts: 12, max_age: 24h}
"""
ENVIRONMENT = {"GITHUB_WEBHOOK_SECRET": "it's a secret", "BLANK": ""}


def parse(*texts, environment=ENVIRONMENT, checks=CHECKS):
    return parse_config(
        [(f"f{number}.yaml", text) for number, text in enumerate(texts, start=1)], environment=environment, checks=checks
    )


def flaws(*texts, **options):
    with pytest.raises(FlawedFile) as caught:
        parse(*texts, **options)
    return [str(flaw) for flaw in caught.value.flaws]


def test_the_file_becomes_the_document_with_its_secrets_in_the_clear():
    document = parse(GOOD).document

    assert document == {
        "version": 1,
        "sources": {"github-acme": {"provider": "github", "secrets": ["it's a secret"]}},
        "agents": {"triage": {"url": "http://127.0.0.1:9000/wake", "allow_private": True}},
        "subscriptions": {
            "bugs-to-triage": {
                "agent": "triage",
                "pattern": {"type": ["github.issues.opened"], "data": {"issue": {"labels": {"name": ["bug"]}}}},
                "context": {"view": "{title: data.issue.title}"},
                "retry": {"max_attempts": 12, "max_age": "24h"},
            }
        },
    }


def test_several_files_make_one_document():
    document = parse(
        "version: 1\nsources: {a: {provider: github}}\n",
        "version: 1\nsources: {b: {provider: gitlab}}\nagents: {x: {url: https://x}}\n",
    ).document

    assert list(document["sources"]) == ["a", "b"]
    assert list(document["agents"]) == ["x"]


def test_a_name_that_stands_in_two_files_is_refused_with_both_places():
    found = flaws(
        "version: 1\nsources:\n  a: {provider: github}\n", "version: 1\nsources:\n  b: {provider: x}\n  a: {provider: y}\n"
    )

    assert found == ["f2.yaml:4:3: `a` is already at f1.yaml:3:3: a name stands once in all files"]


def test_a_flaw_of_the_second_file_is_placed_there():
    found = flaws("version: 1\nagents: {x: {url: https://x}}\n", "version: 1\nsources:\n  a:\n    provider: githup\n")

    assert found == ["f2.yaml:4:5: sources/a: there is no provider `githup`; did you mean `github`?"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nsources:\n  a:\n    providr: github\n", ["f1.yaml:3:3: sources/a: `provider` is missing", "f1.yaml:4:5: sources/a: there is no field `providr` here; did you mean `provider`?"]),
        ("version: 1\nsource: {}\n", ["f1.yaml:2:1: source: there is no section `source`; did you mean `sources`?"]),
        ("version: 2\n", ["f1.yaml:1:1: write `version: 1`"]),
        ("sources: {}\n", ["f1.yaml:1:1: write `version: 1`"]),
        ("version: 1\nagents:\n  My Agent: {url: https://x}\n", ["f1.yaml:3:3: agents/My Agent: `My Agent` is no name: a name is lower-case letters"]),
        ("version: 1\nagents:\n  a:\n    url: https://x\n    max_concurrency: none\n", ["f1.yaml:5:5: agents/a: Input should be a valid integer"]),
        ("version: 1\nagents:\n  a:\n    url: https://x\n    timeout_s: soon\n", ["f1.yaml:5:5: agents/a: 'soon' is no span of time"]),
        ("version: 1\nsubscriptions:\n  s:\n    agent: a\n    pattern:\n      bad: [1]\n", ["f1.yaml:6:7: subscriptions/s: `bad` is no field of an event"]),
        ("version: 1\nsubscriptions:\n  s:\n    agent: a\n    pattern: {}\n    context:\n      view: ']'\n", ["f1.yaml:7:7: subscriptions/s: the view ends in the middle"]),
        ("version: 1\nsources:\n  a:\n    provider: x\n    secrets:\n      - ok\n      - '${UNSET_ONE}'\n", ["f1.yaml:7:9: the variable UNSET_ONE is not set: export it, or write $${UNSET_ONE} for the text itself"]),
        ("version: 1\nsources:\n  a: {provider: x, secrets: ['${BLANK}']}\n", ["f1.yaml:3:30: the variable is set, and blank"]),
        ("version: 1\nsources:\n  a: {provider: x, username: '${A B}'}\n", ["f1.yaml:3:20: `${A B}` names no variable"]),
        ("version: 1\nsources:\n  a: {provider: x}\n  a: {provider: y}\n", ["f1.yaml:4:3: `a` stands twice here; first at f1.yaml:3:3"]),
        ("version: 1\nsources: [a]\n", ["f1.yaml:2:1: sources: this section is a mapping of names"]),
        ("- version: 1\n", ["f1.yaml:1:1: the file is a mapping"]),
        ("", ["f1.yaml:1:1: the file is empty"]),
        ("version: 1\nsources: {a: [}\n", ["f1.yaml:2:15: this is not YAML"]),
        ("version: 1\n\tsources: {}\n", ["f1.yaml:2:1: this is not YAML"]),
        ("version: 1\n---\nversion: 1\n", ["f1.yaml:2:1: this is not YAML"]),
        ("version: 1\nsources: \x00\n", ["f1.yaml:1:1: this is not YAML"]),
        ("version: 1\nsources: !!python/object:os.system {}\n", ["f1.yaml:2:10"]),
        ("version: 1\nsources: !secret x\n", ["f1.yaml:2:10: the tag !secret means nothing here"]),
        ("version: 1\nsources: &a\n  b: *a\n", ["f1.yaml:2:10: an anchor that contains itself"]),
        ("version: 1\n? [a]\n: 1\n", ["f1.yaml:2:3: a key is text"]),
    ],
)  # fmt: skip
def test_a_flaw_is_told_with_its_file_and_line_and_what_would_be_right(text, said):
    found = flaws(text)

    assert len(found) >= len(said)
    for wanted, got in zip(said, found, strict=False):
        assert got.startswith(wanted), found


def test_all_flaws_are_told_at_once_in_the_order_of_the_file():
    found = flaws(
        "version: 1\nsources:\n  a: {provider: githup}\nagents:\n  b: {}\nsubscriptions:\n  c: {agent: b, pattern: {}, odrer: none}\n"
    )

    assert [line.split(":")[1] for line in found] == ["3", "5", "7"]
    assert "did you mean `order`?" in found[2]


def test_an_unset_variable_is_told_once_and_not_again_as_a_blank_secret():
    assert len(flaws("version: 1\nsources:\n  a:\n    provider: x\n    secrets: ['${UNSET_ONE}']\n")) == 1


def test_no_flaw_quotes_a_secret():
    found = flaws(GOOD.replace("provider: github", "provider: 7").replace("max_age: 24h", "max_age: never"))

    assert found
    assert "it's a secret" not in "".join(found)


def test_anchors_aliases_and_merges_are_resolved():
    document = parse(
        "version: 1\nagents:\n  a: &base {url: https://x, max_concurrency: 2}\n  b: {<<: *base, url: https://y}\n  c: *base\n"
    ).document

    assert document["agents"]["b"] == {"url": "https://y", "max_concurrency": 2}
    assert document["agents"]["c"] == document["agents"]["a"]


def test_words_that_old_yaml_reads_as_truth_times_or_numbers_stay_text():
    document = parse(
        "version: 1\nsubscriptions:\n  s:\n    agent: a\n    pattern: {data: {on: [yes, no, off, 2026-11-21, 1:30, 0x10, 1_000, ~, true, 1, 1.5]}}\n"
    ).document

    assert document["subscriptions"]["s"]["pattern"]["data"]["on"] == [
        "yes",
        "no",
        "off",
        "2026-11-21",
        "1:30",
        "0x10",
        "1_000",
        None,
        True,
        1,
        1.5,
    ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "1"),
        ("x${A}y${B}", "x1y2"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$1"),
        ("$A and $", "$A and $"),
        ("data[?x == `$`]", "data[?x == `$`]"),
    ],
)
def test_a_variable_stands_in_braces_and_two_dollars_are_one(text, result):
    assert interpolated(text, {"A": "1", "B": "2"}) == (result, [])


def test_what_a_variable_holds_is_not_looked_into_again():
    assert interpolated("${A}", {"A": "${B}$$"}) == ("${B}$$", [])


def test_the_servers_flaws_are_put_at_their_places():
    config = parse(GOOD)

    error = config.placed(
        [Flaw("/subscriptions/bugs-to-triage/agent", "there is no agent"), Flaw("/agents/triage/secret", "x"), Flaw("", "y")]
    )

    assert [str(flaw) for flaw in error.flaws] == [
        "f1.yaml:1:1: y",
        "f1.yaml:7:3: agents/triage: x",
        "f1.yaml:12:5: subscriptions/bugs-to-triage: there is no agent",
    ]


def test_a_file_is_read_from_the_disk(tmp_path):
    path = tmp_path / "nightbell.yaml"
    path.write_text(GOOD)

    assert load_config([path], environment=ENVIRONMENT, checks=None).document["agents"]


@pytest.mark.parametrize(("content", "said"), [(None, "cannot read"), (b"\xff\xfe", "is not UTF-8")])
def test_a_file_that_cannot_be_read_is_told(tmp_path, content, said):
    path = tmp_path / "n.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(Invalid, match=said):
        load_config([path], environment={}, checks=None)


def test_aliases_of_aliases_do_not_blow_up():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )

    assert any("too many parts" in flaw for flaw in flaws(bomb, checks=None))


def test_the_schema_for_editors_is_current():
    assert (ROOT / "docs" / "nightbell.schema.json").read_text() == config_schema_text(), "run: make docs"


def test_the_schema_takes_what_is_good_and_refuses_what_is_not():
    validator = jsonschema.Draft202012Validator(config_schema())
    document = parse(GOOD).document

    validator.check_schema(config_schema())
    validator.validate(json.loads(json.dumps(document)))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**document, "agents": {"a": {"url": "https://x", "speed": 1}}})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**document, "agents": {"Not A Name": {"url": "https://x"}}})
