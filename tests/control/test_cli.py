import pytest

from control.auth import Role
from control.cli_keys import ROLES
from tests.fakes.command_line import NOBODY, FakeApi, Store, many, means, one, run


@pytest.fixture(scope="module")
def server():
    with FakeApi().running() as running:
        yield running


@pytest.fixture
def api(server):
    server.answers, server.asked = {}, []
    return server


EVENT = {
    "specversion": "1.0",
    "id": "evt_a",
    "source": "github-acme",
    "type": "github.issues.opened",
    "time": "2026-11-21T10:00:00Z",
    "receivedtime": "2026-11-21T10:00:01.120Z",
    "subject": "acme/shop/issues/42",
    "summary": "Issue 42 opened: Checkout \x1b[31mcharges\ntwice",
    "actor": "nora",
    "data": {"action": "opened"},
}
CONFIG = """\
version: 1
sources:
  github-acme:
    provider: github
    secrets: ["${SECRET}"]
subscriptions:
  bugs:
    agent: triage
    pattern: {type: [x]}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "nightbell.yaml"
    path.write_text(CONFIG)
    return path


# apply


def applying(api, **options):
    return means(api.url, environment={"SECRET": "hunter2"}, **options)[0]


PLAN = {
    "dry_run": False,
    "changes": [
        {"kind": "source", "name": "github-acme", "action": "create", "fields": [], "diff": [], "notes": []},
        {"kind": "agent", "name": "triage", "action": "update", "fields": ["url"], "diff": [{"field": "url", "before": "http://a", "after": "http://b"}], "notes": ["a note"]},
        {"kind": "subscription", "name": "bugs", "action": "unchanged", "fields": [], "diff": [], "notes": []},
    ],
    "counts": {},
    "secrets": {"triage": "whsec_made"},
}  # fmt: skip


def test_apply_sends_the_parsed_file_and_shows_what_changed(api, config):
    api.answers["POST /v1/apply"] = PLAN

    result = run(applying(api), "apply", "-f", config)

    assert result.exit_code == 0, result.stderr
    assert api.asked[0]["body"]["sources"] == {"github-acme": {"provider": "github", "secrets": ["hunter2"]}}
    assert api.asked[0]["key"] == "Bearer nbk_test"
    assert result.stdout.splitlines() == [
        "+ source github-acme",
        "~ agent triage",
        "    url: http://a → http://b",
        "    a note",
        "2 changed, 1 as they were",
    ]
    assert "shown this once: whsec_made" in result.stderr


def test_apply_passes_on_dry_run_and_prune(api, config):
    api.answers["POST /v1/apply"] = {**PLAN, "dry_run": True, "secrets": {}}

    result = run(applying(api), "apply", "-f", config, "--dry-run", "--prune", "--json")

    assert api.asked[0]["query"] == {"dry_run": "true", "prune": "true"}
    assert one(result)["dry_run"] is True


def test_apply_quotes_the_place_of_a_flaw_and_sends_nothing(api, tmp_path):
    path = tmp_path / "n.yaml"
    path.write_text("version: 1\nagents:\n  a:\n    urll: http://x\n")

    result = run(applying(api), "apply", "-f", path)

    assert result.exit_code == 2
    assert f"{path}:4:5: agents/a: there is no field `urll` here; did you mean `url`?" in result.stderr
    assert result.stdout == ""
    assert api.asked == []


def test_apply_puts_the_servers_flaws_at_their_places(api, config):
    api.answers["POST /v1/apply"] = (
        422,
        {
            "status": 422,
            "code": "invalid",
            "detail": "?",
            "errors": [{"place": "/subscriptions/bugs/agent", "message": "there is no agent `triage`"}],
        },
    )

    result = run(applying(api), "apply", "-f", config)

    assert result.exit_code == 2
    assert result.stderr == f"{config}:8:5: subscriptions/bugs: there is no agent `triage`\n"


def test_apply_without_a_variable_names_it(api, config):
    result = run(api, "apply", "-f", config)

    assert result.exit_code == 2
    assert "the variable SECRET is not set" in result.stderr


def test_apply_without_a_file_is_bad_usage(api):
    assert run(api, "apply").exit_code == 2


def test_apply_of_a_missing_file_is_bad_input(api, tmp_path):
    result = run(api, "apply", "-f", tmp_path / "none.yaml")

    assert result.exit_code == 2
    assert "cannot read" in result.stderr


def test_apply_does_not_fall_back_to_the_store_when_no_server_runs(config):
    store = Store({})
    found, _ = means(NOBODY, store=store, environment={"SECRET": "x"})

    result = run(found, "apply", "-f", config)

    assert result.exit_code == 5
    assert "is `nightbell serve` running there?" in result.stderr
    assert store.asked == []


# lists and shows


LISTED = {
    "sources": {"name": "github-acme", "provider": "github", "url": "http://h/in/github-acme", "refusals_24h": 3},
    "agents": {"name": "triage", "protocol": "webhook", "url": "http://a", "max_concurrency": 8, "state": "live"},
    "subscriptions": {"name": "bugs", "agent": "triage", "order": "strict", "state": "live", "generation": 2},
    "events": {**EVENT, "states": {"done": 2, "waiting": 1}},
    "invocations": {
        "id": "inv_a",
        "state": "done",
        "attempts": 2,
        "subscription": "bugs",
        "agent": "triage",
        "event_id": "evt_a",
    },
    "keys": {"id": "key_a", "name": "ci", "role": "viewer"},
}


@pytest.mark.parametrize("kind", LISTED)
def test_a_list_is_a_table_for_people(api, kind):
    api.answers[f"GET /v1/{kind}"] = {"items": [LISTED[kind]], "next_cursor": None}

    result = run(api, kind, "list")

    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert (LISTED[kind].get("name") or LISTED[kind]["id"]) in result.stdout


@pytest.mark.parametrize("kind", LISTED)
def test_a_list_is_json_lines_for_programs(api, kind):
    api.answers[f"GET /v1/{kind}"] = {"items": [LISTED[kind], LISTED[kind]], "next_cursor": None}

    assert many(run(api, kind, "list", "--json")) == [LISTED[kind]] * 2


@pytest.mark.parametrize("kind", LISTED)
def test_an_empty_list_says_so_on_stderr_and_gives_nothing(api, kind):
    api.answers[f"GET /v1/{kind}"] = {"items": [], "next_cursor": None}

    people, programs = run(api, kind, "list"), run(api, kind, "list", "--json")

    assert (people.exit_code, people.stdout) == (0, "")
    assert people.stderr.startswith("no ")
    assert (programs.exit_code, programs.stdout, programs.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("kind", "name"), [("sources", "s"), ("agents", "a"), ("subscriptions", "x"), ("events", "evt_a"), ("invocations", "inv_a")]
)
def test_show_gives_the_document(api, kind, name):
    document = {**LISTED[kind], "refusals": []}
    api.answers[f"GET /v1/{kind}/{name}"] = document

    assert one(run(api, kind, "show", name, "--json")).items() >= document.items()
    assert run(api, kind, "show", name).exit_code == 0


@pytest.mark.parametrize("kind", ["sources", "agents", "subscriptions", "events", "invocations"])
def test_what_is_not_there_ends_with_3(api, kind):
    result = run(api, kind, "show", "nothing", "--json")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "there is no such thing" in result.stderr


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", 4),
        (403, "not_allowed", 4),
        (404, "not_found", 3),
        (409, "conflict", 1),
        (422, "invalid", 2),
        (400, "refused", 2),
        (503, "store_unavailable", 5),
        (500, "?", 5),
        (418, "?", 2),
    ],
)
def test_the_apis_answer_becomes_the_exit_code(api, status, code, exit_code):
    api.answers["GET /v1/sources"] = (status, {"status": status, "code": code, "detail": "because"})

    result = run(api, "sources", "list")

    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", "because\n")


def test_an_answer_that_is_no_problem_document_is_told_by_its_status(api):
    api.answers["GET /v1/sources"] = (502, "bad gateway")

    result = run(api, "sources", "list")

    assert (result.exit_code, result.stderr) == (5, "the API answered 502\n")


def test_without_a_server_or_an_embedded_store_it_ends_with_5():
    result = run(means(NOBODY)[0], "sources", "list")

    assert result.exit_code == 5
    assert "no answer from the API" in result.stderr


def test_without_a_server_reading_commands_read_the_embedded_store():
    store = Store({"/v1/agents": {"items": [LISTED["agents"]], "next_cursor": None}})

    result = run(means(NOBODY, store=store)[0], "agents", "list", "--json")

    assert many(result) == [LISTED["agents"]]
    assert store.asked == ["GET /v1/agents"]


def test_pages_are_followed_up_to_the_limit(api):
    api.answers["GET /v1/events"] = [
        {"items": [{**EVENT, "id": f"evt_{n}"} for n in range(3)], "next_cursor": "next"},
        {"items": [{**EVENT, "id": f"evt_{n}"} for n in range(3, 5)], "next_cursor": None},
    ]

    found = many(run(api, "events", "list", "--json", "-n", "5"))

    assert [event["id"] for event in found] == ["evt_0", "evt_1", "evt_2", "evt_3", "evt_4"]
    assert [asked["query"] for asked in api.asked] == [{"limit": "5"}, {"limit": "2", "cursor": "next"}]


def test_filters_are_passed_on_and_spans_become_instants(api):
    api.answers["GET /v1/events"] = {"items": [], "next_cursor": None}

    run(
        api,
        "events",
        "list",
        "--since",
        "2026-11-21T10:00:00Z",
        "--until",
        "5m",
        "--source",
        "s",
        "--type",
        "t",
        "--subject",
        "u",
        "--outcome",
        "done",
    )

    query = api.asked[0]["query"]
    assert query.pop("until").endswith("Z")
    assert query == {
        "since": "2026-11-21T10:00:00Z",
        "source": "s",
        "type": "t",
        "subject": "u",
        "outcome": "done",
        "limit": "50",
    }


def test_an_instant_that_is_none_is_bad_input(api):
    result = run(api, "events", "list", "--since", "yesterday")

    assert result.exit_code == 2
    assert "neither an instant" in result.stderr


def test_what_outsiders_wrote_cannot_steer_the_terminal(api):
    api.answers["GET /v1/events"] = {"items": [LISTED["events"]], "next_cursor": None}

    result = run(api, "events", "list")

    assert "\x1b" not in result.stdout
    assert "2 done, 1 waiting" in result.stdout
    assert "Checkout ·[31mcharges⏎twice" in result.stdout


# sources and agents


def test_a_source_shows_its_url_and_its_last_refusals_with_the_step(api):
    refusal = {
        "at": "2026-11-21T10:00:00Z",
        "code": "refused",
        "step": "signature_mismatch",
        "reason": "no secret fits",
        "remote": "10.0.0.1",
    }
    api.answers["GET /v1/sources/s"] = {**LISTED["sources"], "refusals": [refusal]}

    shown = run(api, "sources", "show", "s").stdout

    assert "http://h/in/github-acme" in shown
    assert "2. Payload URL: http://h/in/github-acme" in shown
    assert "signature_mismatch" in shown


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_a_ping_shows_each_step_and_ends_by_its_answer(api, ok, code):
    api.answers["POST /v1/agents/a/ping"] = {
        "ok": ok,
        "steps": [{"step": "signed", "ok": True}, {"step": "answered", "ok": ok, "detail": "503"}],
    }

    result = run(api, "agents", "ping", "a")

    assert result.exit_code == code
    assert ("FAILED" in result.stdout) is not ok
    assert run(api, "agents", "ping", "nobody").exit_code == 3


def test_a_rotated_secret_is_shown_once(api):
    api.answers["POST /v1/agents/a/rotate-secret"] = {"agent": "a", "secret": "whsec_new", "old_until": "2026-11-22T10:00:00Z"}

    assert run(api, "agents", "rotate-secret", "a").stdout == "whsec_new\n"
    assert run(api, "agents", "rotate-secret", "b").exit_code == 3


# trace and explain


TRACE = {
    "event": EVENT,
    "steps": [
        {"at": "2026-11-21T10:00:01.120Z", "step": "received", "detail": "verified", "invocation": ""},
        {"at": "2026-11-21T10:00:01.123Z", "step": "admitted", "detail": "1 subscription matched", "invocation": ""},
        {"at": "2026-11-21T10:00:01.124Z", "step": "attempt 1 started", "detail": "x", "invocation": "inv_a"},
    ],
    "invocations": [
        {
            "id": "inv_a",
            "subscription": "bugs",
            "agent": "triage",
            "state": "done",
            "reason": "delivered",
            "ordering_key": "default/github-acme/42",
            "created_at": "2026-11-21T10:00:01.123Z",
            "ended_at": "2026-11-21T10:03:20Z",
            "attempts": [
                {
                    "number": 1,
                    "started_at": "2026-11-21T10:00:01.124Z",
                    "outcome": "failed",
                    "status": 503,
                    "duration_ms": 12.4,
                },
                {
                    "number": 2,
                    "started_at": "2026-11-21T10:03:19.990Z",
                    "outcome": "delivered",
                    "status": 200,
                    "duration_ms": 10,
                    "tokens": 81,
                },
            ],
        }
    ],
    "misses": [
        {"subscription": "other", "matched": False, "fields": [{"path": "type", "ok": False, "wanted": ["y"], "found": "x"}]},
        {"subscription": "new", "matched": True},
    ],
}


def test_a_trace_reads_like_a_story(api):
    api.answers["GET /v1/events/evt_a/trace"] = TRACE

    shown = run(api, "trace", "evt_a").stdout

    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0] == "evt_a  github.issues.opened"
    assert "+0 ms  received  verified" in lines
    assert "+3 ms  admitted  1 subscription matched" in lines
    assert "bugs → triage  done (delivered)  inv_a" in lines
    assert "+4 ms  attempt 1  failed, HTTP 503, took 12 ms" in lines
    assert "+3 m 18 s  attempt 2  delivered, HTTP 200, took 10 ms, 81 tokens" in lines
    assert "+3 m 18 s  done  delivered" in lines
    assert 'other: type wanted ["y"], found x' in lines
    assert "attempt 1 started" not in shown
    assert not any(line.startswith("new:") for line in lines)


def test_a_trace_of_an_event_that_nobody_wanted_says_so(api):
    api.answers["GET /v1/events/evt_a/trace"] = {**TRACE, "invocations": [], "misses": []}

    assert "no subscription matched" in run(api, "trace", "evt_a").stdout


def test_a_trace_of_what_waits_says_when_it_goes_on(api):
    waiting = {
        **TRACE["invocations"][0],
        "state": "waiting",
        "reason": "retry",
        "ended_at": None,
        "due_at": "2026-11-22T12:00:01.120Z",
        "attempts": [],
    }
    api.answers["GET /v1/events/evt_a/trace"] = {**TRACE, "invocations": [waiting]}

    assert "+1 d 2 h  next attempt is due  retry" in run(api, "trace", "evt_a").stdout


def test_a_trace_is_one_document_for_programs(api):
    api.answers["GET /v1/events/evt_a/trace"] = TRACE

    assert one(run(api, "trace", "evt_a", "--json")) == TRACE
    assert run(api, "trace", "evt_b").exit_code == 3


VERDICT = {
    "subscription": "bugs",
    "matched": False,
    "fields": [
        {"path": "type", "ok": True, "wanted": ["x"], "found": "x"},
        {"path": "data.issue.labels.name", "ok": False, "wanted": ["bug"], "absent": True},
    ],
}


def test_explain_shows_each_field_with_what_was_wanted_and_found(api):
    api.answers["GET /v1/events/evt_a/explain"] = {"items": [VERDICT]}

    result = run(api, "explain", "evt_a")

    assert result.exit_code == 0
    assert '✗ data.issue.labels.name  wanted ["bug"]  found nothing there' in result.stdout
    assert "✓ type" in result.stdout


def test_explain_of_one_subscription_ends_by_its_answer(api):
    api.answers["GET /v1/events/evt_a/explain"] = [{"items": [VERDICT]}, {"items": [{**VERDICT, "matched": True}]}]

    no, yes = run(api, "explain", "evt_a", "bugs", "--json"), run(api, "explain", "evt_a", "bugs")

    assert (no.exit_code, yes.exit_code) == (1, 0)
    assert many(no) == [VERDICT]
    assert api.asked[0]["query"] == {"subscription": "bugs"}
    assert run(api, "explain", "evt_b").exit_code == 3


def test_explain_without_subscriptions_says_so(api):
    api.answers["GET /v1/events/evt_a/explain"] = {"items": []}

    assert "no subscriptions" in run(api, "explain", "evt_a").stderr


# invocations, redrive, replay


def test_an_invocation_shows_its_attempts(api):
    api.answers["GET /v1/invocations/inv_a"] = TRACE["invocations"][0]

    shown = run(api, "invocations", "show", "inv_a").stdout

    assert "delivered" in shown
    assert "503" in shown


def test_one_invocation_is_redriven_by_its_id(api):
    api.answers["POST /v1/invocations/inv_a/redrive"] = {"id": "inv_a", "state": "queued"}

    assert one(run(api, "redrive", "inv_a", "--json"))["state"] == "queued"
    assert run(api, "redrive", "inv_b").exit_code == 3


RUNNING = {"id": "prg_1", "state": "running", "total": 2, "done": 0}
ENDED = {"id": "prg_1", "state": "done", "total": 2, "done": 2}


@pytest.mark.parametrize(("words", "path", "body"), [
    (["redrive", "--agent", "triage"], "/v1/redrives", {"agent": "triage", "state": "buried", "dry_run": False}),
    (["redrive", "--all", "--state", "expired"], "/v1/redrives", {"state": "expired", "dry_run": False}),
    (["replay", "--source", "s", "--type", "t", "-s", "bugs"], "/v1/replays", {"source": "s", "type": "t", "subscription": "bugs", "dry_run": False}),
    (["redrive", "--reason", "max_age"], "/v1/redrives", {"reason": "max_age", "state": "buried", "dry_run": False}),
    (["dead", "purge", "--reason", "gone", "--agent", "triage"], "/v1/purges", {"reason": "gone", "agent": "triage", "dry_run": False}),
    (["replay", "evt_a"], "/v1/replays", {"event": "evt_a", "dry_run": False}),
])  # fmt: skip
def test_work_by_query_is_followed_to_its_end(api, words, path, body):
    api.answers[f"POST {path}"] = (202, RUNNING)
    api.answers[f"GET {path}/prg_1"] = ENDED

    result = run(api, *words, "--json")

    assert one(result) == ENDED
    assert api.asked[0]["body"] == body
    assert api.asked[1]["call"] == f"GET {path}/prg_1"


@pytest.mark.parametrize(("verb", "done"), [("redrive", "redriven"), ("replay", "replayed")])
def test_a_dry_run_counts_and_does_nothing(api, verb, done):
    api.answers[f"POST /v1/{verb}s"] = {"state": "dry_run", "total": 7, "done": 0, "dry_run": True}

    result = run(api, verb, "--since", "2h", "--dry-run")

    assert result.stdout == f"7 would be {done}\n"
    assert api.asked[0]["body"]["dry_run"] is True


def test_what_failed_ends_with_1(api):
    api.answers["POST /v1/replays"] = (202, {**ENDED, "state": "failed", "reason": "the store went away"})

    result = run(api, "replay", "--all")

    assert result.exit_code == 1
    assert "it failed: the store went away" in result.stderr


@pytest.mark.parametrize("verb", ["redrive", "replay"])
def test_work_on_everything_has_to_be_said(api, verb):
    result = run(api, verb)

    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert api.asked == []


def test_a_state_that_is_none_is_bad_usage(api):
    assert run(api, "invocations", "list", "--state", "lost").exit_code == 2


# keys


def test_a_key_is_made_and_shown_once(api):
    api.answers["POST /v1/keys"] = {"id": "key_a", "key": "nbk_new"}

    assert run(api, "keys", "create", "ci", "--role", "operator", "--expires", "2026-12-01T00:00:00Z").stdout == "nbk_new\n"
    assert api.asked[0]["body"] == {"name": "ci", "role": "operator", "expires_at": "2026-12-01T00:00:00Z"}


def test_a_key_is_made_in_the_store_itself_when_no_server_runs():
    found, made = means(NOBODY)

    result = run(found, "keys", "create", "root", "--role", "admin", "--local", "--json")

    assert one(result)["key"] == "nbk_local"
    assert made == [{"name": "root", "role": "admin", "agent": None, "expires_at": None}]


@pytest.mark.parametrize("words", [["--role", "agent"], ["--role", "viewer", "--agent", "triage"], ["--role", "king"]])
def test_a_key_that_makes_no_sense_is_bad_input(api, words):
    assert run(api, "keys", "create", "x", *words).exit_code == 2


def test_the_roles_of_a_key_are_those_that_the_api_knows():
    assert set(ROLES) == {role.value for role in Role}


def test_a_key_is_revoked(api):
    api.answers["DELETE /v1/keys/key_a"] = (204, None)

    assert one(run(api, "keys", "revoke", "key_a", "--json")) == {"id": "key_a", "revoked": True}
    assert run(api, "keys", "revoke", "key_b").exit_code == 3


# listen


def test_listen_prints_each_new_event_once(api):
    later = {**EVENT, "id": "evt_b", "receivedtime": "2026-11-21T10:00:02Z"}
    api.answers["GET /v1/events"] = [{"items": [EVENT], "next_cursor": None}, {"items": [later, EVENT], "next_cursor": None}]

    result = run(api, "listen", "--since", "2026-11-21T10:00:00Z", "-n", "2", "--json")

    assert [event["id"] for event in many(result)] == ["evt_a", "evt_b"]


def test_listen_forwards_the_whole_event(api):
    api.answers["GET /v1/events"] = {"items": [EVENT], "next_cursor": None}
    api.answers["GET /v1/events/evt_a"] = EVENT
    api.answers["POST /hook"] = {"ok": True}

    result = run(api, "listen", "-n", "1", "--forward", f"{api.url}/hook")

    [forwarded] = [asked for asked in api.asked if asked["call"] == "POST /hook"]
    assert forwarded["body"] == EVENT
    assert "evt_a →" in result.stderr
    assert "200" in result.stderr
    assert "github.issues.opened" in result.stdout


def test_listen_goes_on_when_nobody_takes_what_it_forwards(api):
    api.answers["GET /v1/events"] = {"items": [EVENT], "next_cursor": None}
    api.answers["GET /v1/events/evt_a"] = EVENT

    result = run(api, "listen", "-n", "1", "--forward", NOBODY)

    assert result.exit_code == 0
    assert NOBODY in result.stderr


def test_listen_without_a_server_ends_with_5():
    assert run(means(NOBODY)[0], "listen").exit_code == 5


# the whole


def test_help_groups_the_commands_in_the_order_of_need():
    shown = run(means(NOBODY)[0], "--help").stdout

    places = [shown.index(head) for head in ("Run", "What is configured", "What came", "Try out", "Work again", "Access")]
    assert places == sorted(places)


def test_without_a_word_the_help_is_shown():
    assert "Usage" in run(means(NOBODY)[0]).output


def test_an_unknown_command_is_bad_usage():
    assert run(means(NOBODY)[0], "frobnicate").exit_code == 2
