import base64
import hashlib
import hmac
import json

import pytest

from tests.fakes.command_line import NOBODY as NOBODY_URL
from tests.fakes.command_line import many, means, one, run

NOBODY = means(NOBODY_URL)[0]
SECRET = "a long secret"
BODY = json.dumps(
    {
        "action": "opened",
        "issue": {
            "number": 42,
            "node_id": "I_1",
            "title": "Checkout charges twice",
            "html_url": "https://github.com/acme/shop/issues/42",
            "created_at": "2026-11-21T10:00:00Z",
            "updated_at": "2026-11-21T10:00:00Z",
        },
        "repository": {"full_name": "acme/shop"},
        "sender": {"login": "nora"},
    },
    separators=(",", ":"),
).encode()


def signature(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def headers(body=BODY):
    return [["Host", "hooks.example.com"], ["X-GitHub-Event", "issues"], ["X-GitHub-Delivery", "d-1"], ["X-Hub-Signature-256", signature(body)], ["Content-Type", "application/json"]]  # fmt: skip


def message(body=BODY, named=None):
    head = "".join(f"{name}: {value}\r\n" for name, value in (named or headers()))
    return b"POST /in/github-acme HTTP/1.1\r\n" + head.encode() + b"\r\n" + body


def line(**changes):
    found = {
        "provider": "github",
        "source": {"secrets": [SECRET]},
        "method": "POST",
        "url": "https://hooks.example.com/in/github-acme",
        "headers": headers(),
        "body_b64": base64.b64encode(BODY).decode(),
        "now_unix": 1_750_000_000,
    }
    return {**found, **changes}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("S", SECRET)
    monkeypatch.setenv("OTHER", "another secret")


@pytest.fixture
def captured(tmp_path):
    def written(content, name="request"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


# list and show


def test_the_catalogue_is_listed():
    result = run(NOBODY, "providers", "list")

    assert "github" in result.stdout
    assert "HMAC-SHA256" in result.stdout
    assert {"name", "family", "scheme", "confirmed"} <= many(run(NOBODY, "providers", "list", "--json"))[0].keys()


def test_a_provider_shows_its_steps_and_the_secret_to_copy():
    shown = run(NOBODY, "providers", "show", "github").stdout

    assert "1. " in shown
    assert "{url}" in shown
    assert "Secret" in shown
    assert one(run(NOBODY, "providers", "show", "github", "--json"))["steps"]


def test_a_provider_that_is_none_names_the_near_one():
    result = run(NOBODY, "providers", "show", "githup")

    assert result.exit_code == 3
    assert "github" in result.stderr


# verify


def test_a_captured_message_is_proven(captured):
    result = run(NOBODY, "providers", "verify", "--provider", "github", "--secret-env", "S", captured(message()), "--json")

    assert one(result) == {"ok": True, "type": "github.issues.opened", "deliveryid": "d-1"}


def test_any_of_several_secrets_may_fit(captured):
    words = ["--secret-env", "OTHER", "--secret-env", "S"]

    assert run(NOBODY, "providers", "verify", "--provider", "github", *words, captured(message())).exit_code == 0


def test_a_har_entry_is_proven(captured):
    entry = {
        "request": {
            "method": "POST",
            "url": "https://hooks.example.com/in/github-acme",
            "headers": [{"name": name, "value": value} for name, value in headers()],
            "postData": {"text": BODY.decode()},
        }
    }

    result = run(NOBODY, "providers", "verify", "--provider", "github", "--secret-env", "S", captured(json.dumps(entry)))

    assert (result.exit_code, result.stdout) == (0, "proven  github.issues.opened  d-1\n")


def refusal(captured, content, *words):
    result = run(NOBODY, "providers", "verify", "--provider", "github", *words, captured(content), "--json")
    assert result.exit_code == 1
    [found] = many(result)
    assert SECRET not in result.stdout + result.stderr
    return found


def test_another_secret_is_named_as_the_likely_cause(captured):
    found = refusal(captured, message(), "--secret-env", "OTHER")

    assert (found["ok"], found["step"]) == (False, "signature_mismatch")
    assert "another secret" in found["hints"][0]


@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        (json.dumps(json.loads(BODY)).encode(), "as compact JSON"),
        (BODY + b"\n", "without the line break"),
    ],
)
def test_a_body_that_was_changed_on_its_way_is_named_as_the_cause(captured, sent, hint):
    found = refusal(captured, message(sent), "--secret-env", "S")

    assert found["step"] == "signature_mismatch"
    assert hint in found["hints"][0]


def test_a_missing_header_is_named(captured):
    named = [pair for pair in headers() if pair[0] != "X-Hub-Signature-256"]

    assert refusal(captured, message(named=named), "--secret-env", "S")["step"] in {"signature_missing", "no_check"}


def test_without_a_secret_nothing_is_proven(captured):
    assert refusal(captured, message())["step"] == "source"


def test_a_clock_that_is_off_is_named(captured):
    stamp = 1_750_000_000
    signed = hmac.new(
        SECRET.encode(), f"{stamp}.".encode() + b'{"id": "evt_1", "type": "invoice.paid"}', hashlib.sha256
    ).hexdigest()
    raw = captured(
        f'POST /in/s HTTP/1.1\nStripe-Signature: t={stamp},v1={signed}\nContent-Type: application/json\n\n{{"id": "evt_1", "type": "invoice.paid"}}'
    )
    words = ["providers", "verify", "--provider", "stripe", "--secret-env", "S", raw, "--json"]

    late = run(NOBODY, *words)
    then = run(NOBODY, *words, "--at", "2025-06-15T15:06:40Z")

    assert (late.exit_code, many(late)[0]["step"]) == (1, "timestamp_stale")
    assert one(then)["type"] == "stripe.invoice.paid"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--provider", "github"], "REQUEST"),
        (["x"], "--provider"),
        (["--provider", "github", "/nowhere/at/all"], "cannot read"),
        (["--provider", "github", "--secret-env", "UNSET_ONE", "x"], "UNSET_ONE is not set"),
        (["--provider", "github", "--option", "tolerance_s", "x"], "reads like"),
    ],
)
def test_verify_refuses_what_makes_no_sense(words, said):
    result = run(NOBODY, "providers", "verify", *words, "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_request_that_is_none_is_bad_input(captured):
    assert run(NOBODY, "providers", "verify", "--provider", "github", captured("hello")).exit_code == 2


def test_verify_answers_line_by_line(captured):
    lines = [
        line(),
        line(source={"secrets": ["another secret"]}),
        line(source={"secrets": [""]}),
        line(source={"sekrets": [SECRET]}),
        line(provider="githup"),
        line(body_b64="???"),
        line(headers=[["only a name"]]),
        {},
        7,
    ]

    result = run(NOBODY, "providers", "verify", "--jsonl", captured("\n".join(map(json.dumps, lines)) + "\nnonsense\n"))

    found = many(result)
    assert result.exit_code == 0
    assert found[0] == {"ok": True, "type": "github.issues.opened", "deliveryid": "d-1"}
    assert [verdict["step"] for verdict in found[1:]] == [
        "signature_mismatch",
        "source",
        "line",
        "source",
        "line",
        "line",
        "line",
        "line",
        "line",
    ]
    assert SECRET not in result.stdout


# normalize


def test_normalize_prints_the_events_unverified(captured):
    [event] = many(run(NOBODY, "providers", "normalize", "--provider", "github", captured(message()), "--json"))

    assert (event["type"], event["actor"], event["data"]["issue"]["number"]) == ("github.issues.opened", "nora", 42)
    assert "traceparent" not in event


def test_normalize_shows_people_each_attribute(captured):
    shown = run(NOBODY, "providers", "normalize", "--provider", "github", captured(message())).stdout

    assert "github.issues.opened" in shown
    assert "acme/shop/issues/42" in shown


def test_normalize_answers_line_by_line(captured):
    lines = [line(source={}), line(body_b64=base64.b64encode(b"{").decode()), line(provider="githup"), {}]

    found = many(run(NOBODY, "providers", "normalize", "--jsonl", captured("\n".join(map(json.dumps, lines)))))

    assert [event["type"] for event in found[0]["events"]] == ["github.issues.opened"]
    assert [list(answer) for answer in found[2:]] == [["error"]] * 2


def test_normalize_of_an_unknown_provider_ends_with_3(captured):
    result = run(NOBODY, "providers", "normalize", "--provider", "githup", captured(message()))

    assert (result.exit_code, result.stdout) == (3, "")
