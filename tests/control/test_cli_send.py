import hashlib
import hmac
import json

import pytest

from tests.fakes.command_line import NOBODY, FakeApi, means, one, run

SECRET = "a long secret"
BODY = '{"action":"opened","issue":{"number":42}}'


@pytest.fixture(scope="module")
def server():
    with FakeApi().running() as running:
        yield running


@pytest.fixture
def api(server):
    server.answers, server.asked = {}, []
    return server


@pytest.fixture
def body(tmp_path, monkeypatch):
    monkeypatch.setenv("S", SECRET)
    path = tmp_path / "body.json"
    path.write_text(BODY)
    return path


def test_a_body_is_posted_as_the_vendor_would(api, body):
    api.answers["POST /in/github-acme"] = (202, {"events": ["evt_a"]})

    result = run(
        api,
        "send",
        "github",
        body,
        "--to",
        f"{api.url}/in/github-acme",
        "--secret-env",
        "S",
        "-H",
        "X-GitHub-Event: issues",
        "--json",
    )

    assert one(result) == {"url": f"{api.url}/in/github-acme", "status": 202, "answer": '{"events": ["evt_a"]}'}
    [asked] = api.asked
    assert asked["body"] == json.loads(BODY)
    assert asked["headers"]["x-github-event"] == "issues"
    assert (
        asked["headers"]["x-hub-signature-256"]
        == "sha256=" + hmac.new(SECRET.encode(), BODY.encode(), hashlib.sha256).hexdigest()
    )


def test_a_refusal_ends_with_1(api, body):
    api.answers["POST /in/github-acme"] = (401, {"code": "refused"})

    result = run(api, "send", "github", body, "--to", f"{api.url}/in/github-acme", "--secret-env", "S")

    assert result.exit_code == 1
    assert result.stdout.startswith("401")


def test_without_an_address_it_goes_to_the_one_source_of_that_provider(api, body):
    api.answers["GET /v1/sources"] = {
        "items": [
            {"name": "gh", "provider": "github", "url": "https://public.example/in/gh"},
            {"name": "s", "provider": "stripe"},
        ],
        "next_cursor": None,
    }

    result = run(means(api.url, ingest_url=api.url)[0], "send", "github", body, "--secret-env", "S", "--json")

    assert api.asked[-1]["call"] == "POST /in/gh"
    assert result.exit_code == 1  # the fake answers 404


@pytest.mark.parametrize(("names", "code"), [([], 3), (["a", "b"], 2)])
def test_none_or_several_sources_of_that_provider_have_to_be_told_apart(api, body, names, code):
    api.answers["GET /v1/sources"] = {
        "items": [{"name": name, "provider": "github", "url": f"http://h/in/{name}"} for name in names],
        "next_cursor": None,
    }

    result = run(api, "send", "github", body, "--secret-env", "S")

    assert result.exit_code == code
    assert "--to URL" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["github", "/nowhere/at/all", "--to", NOBODY], 2, "cannot read"),
        (["githup", "BODY", "--to", NOBODY, "--secret-env", "S"], 3, "github"),
        (["github", "BODY", "--to", NOBODY], 2, "secrets"),
        (["github", "BODY", "--to", NOBODY, "--secret-env", "UNSET_ONE"], 2, "UNSET_ONE"),
        (["github", "BODY", "--to", NOBODY, "--secret-env", "S", "-H", "nonsense"], 2, "is no header"),
        (["github", "BODY", "--to", NOBODY, "--secret-env", "S"], 5, "no answer"),
    ],
)
def test_what_cannot_be_sent_says_why(body, words, code, said):
    result = run(means(NOBODY)[0], "send", *[body if word == "BODY" else word for word in words], "--json")

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
