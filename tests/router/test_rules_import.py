"""Rules of other systems: what they become, and what the report says is lost."""

import json

import pytest

from router.rule import compile_rule
from router.rules_import import import_rules
from schemas.config import SubscriptionSpec
from schemas.errors import Invalid


def _one(text):
    found = import_rules(text, agent="triage")
    assert len(found.reports) == 1
    return found, found.reports[0]


def _rule(found, name):
    return compile_rule(SubscriptionSpec(**found.subscriptions[name]))


def test_an_eventbridge_rule_becomes_a_subscription():
    rule = {
        "Name": "OrdersPaid",
        "EventPattern": json.dumps(
            {"source": ["shop"], "detail-type": ["paid"], "detail": {"total": [{"numeric": [">", 5]}]}, "region": ["eu"]}
        ),
        "State": "DISABLED",
        "Targets": [{"Id": "fn"}],
    }

    found, report = _one(json.dumps(rule))

    assert found.as_file() == {
        "version": 1,
        "subscriptions": {
            "orders-paid": {
                "agent": "triage",
                "pattern": {"source": ["shop"], "type": ["paid"], "data": {"total": [{"numeric": [">", 5]}]}},
                "state": "paused",
            }
        },
    }
    assert report.subscription == "orders-paid"
    assert [text.split(":")[0] for text in report.not_carried_over] == ["region", "target fn"]
    assert _rule(found, "orders-paid").matches({"source": "shop", "type": "paid", "data": {"total": 6}})


def test_the_output_of_list_rules_gives_every_rule_and_reports_schedules():
    rules = {
        "Rules": [{"Name": "a", "EventPattern": '{"detail-type": ["x"]}'}, {"Name": "b", "ScheduleExpression": "rate(1 day)"}]
    }

    found = import_rules(json.dumps(rules))

    assert list(found.subscriptions) == ["a"]
    assert "schedules are no webhooks" in found.reports[1].not_carried_over[0]
    assert found.reports[1].as_json()["rule"] == "b"


TEMPLATE = """
Resources:
  Bucket: {Type: AWS::S3::Bucket}
  PushRule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        detail-type: [push]
        $or:
          - detail: {ref: [{prefix: refs/tags/}]}
          - detail: {forced: [true]}
      Targets:
        - Arn: !GetAtt Fn.Arn
          Id: fn
  Dynamic:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        account: [!Ref AWS::AccountId]
"""


def test_a_cloudformation_template_gives_its_rules_and_refuses_functions():
    found = import_rules(TEMPLATE)

    assert list(found.subscriptions) == ["push-rule"]
    assert _rule(found, "push-rule").matches({"type": "push", "data": {"forced": True}})
    assert "a CloudFormation function has no value here" in found.reports[1].not_carried_over[0]


TRIGGERS = """
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: My_Trigger}
spec:
  broker: default
  filter: {attributes: {type: dev.knative.foo, source: ""}}
  subscriber: {uri: http://x}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: new}
spec:
  filters:
    - any:
        - prefix: {type: dev.}
        - cesql: "source = 'acme'"
    - not: {exact: {type: dev.x}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec: {}
"""


def test_knative_triggers_become_filters():
    found = import_rules(TRIGGERS)

    assert found.subscriptions["my_trigger"]["filters"] == [{"exact": {"type": "dev.knative.foo"}}]
    assert _rule(found, "new").matches({"type": "dev.y", "source": "z"})
    assert not _rule(found, "new").matches({"type": "dev.x", "source": "acme"})
    assert "it takes every event" in found.reports[2].not_carried_over[0]
    assert [report.subscription for report in found.reports] == ["my_trigger", "new", None]


def _sensor(filters, **dependency):
    written = {"name": "dep", "eventSourceName": "gh", "eventName": "push", "filters": filters, **dependency}
    return json.dumps({"kind": "Sensor", "metadata": {"name": "s"}, "spec": {"dependencies": [written]}})


def _data(path, kind, value, **more):
    return {"path": path, "type": kind, "value": value, **more}


@pytest.mark.parametrize(
    ("filters", "pattern", "matching"),
    [
        ({"data": [_data("body.action", "string", ["opened"])]}, {"data": {"action": ["opened"]}}, {"action": "opened"}),
        ({"data": [_data("body.n", "number", ["5"], comparator=">=")]}, {"data": {"n": [{"numeric": [">=", 5]}]}}, {"n": 5}),
        ({"data": [_data("body.n", "number", ["5", "6.5"])]}, {"data": {"n": [5, 6.5]}}, {"n": 6.5}),
        ({"data": [_data("body.n", "number", ["5"], comparator="!=")]}, {"data": {"n": [{"anything-but": [5]}]}}, {"n": 6}),
        ({"data": [_data("body.on", "bool", ["true"])]}, {"data": {"on": [True]}}, {"on": True}),
        ({"data": [_data("body.a", "string", ["x"], comparator="!=")]}, {"data": {"a": [{"anything-but": ["x"]}]}}, {"a": "y"}),
        ({"data": [_data("body.a.b", "string", ["^x$"])]}, {"data": {"a": {"b": ["x"]}}}, {"a": {"b": "x"}}),
        (
            {"data": [_data("body.a", "string", ["v[0-9]+"])]},
            {"data": {"a": [{"regex": "(?s:.*)(?:v[0-9]+)(?s:.*)"}]}},
            {"a": "is v2!"},
        ),
        (
            {"data": [_data("body.a", "string", ["x"]), _data("body.b", "string", ["y"])], "dataLogicalOperator": "or"},
            {"$or": [{"data": {"a": ["x"]}}, {"data": {"b": ["y"]}}]},
            {"b": "y"},
        ),
    ],
)
def test_argo_data_filters_become_a_pattern(filters, pattern, matching):
    found, report = _one(_sensor(filters))

    assert found.subscriptions["s-dep"]["pattern"] == pattern
    assert _rule(found, "s-dep").matches({"data": matching})
    assert not _rule(found, "s-dep").matches({"data": {}})
    assert any("gh/push" in note for note in report.notes)


def test_argo_context_filters_name_attributes():
    found, _ = _one(_sensor({"context": {"type": "push", "source": "gh"}}))

    assert found.subscriptions["s-dep"]["pattern"] == {"type": ["push"], "source": ["gh"]}


@pytest.mark.parametrize(
    ("filters", "part"),
    [
        ({}, "it takes every event of its source"),
        ({"script": "return true"}, "filters.script has no counterpart"),
        ({"exprs": [{"expr": "a"}]}, "filters.exprs"),
        ({"time": {"start": "1"}}, "filters.time"),
        ({"filtersLogicalOperator": "or"}, "filtersLogicalOperator"),
        ({"context": {"id": "1"}}, "filters.context.id"),
        ({"data": [_data("headers.x", "string", ["1"])]}, "only plain paths below body"),
        ({"data": [_data("body.#.x", "string", ["1"])]}, "only plain paths below body"),
        ({"data": [_data("body.x", "date", ["1"])]}, "filters.data type 'date'"),
        ({"data": [_data("body.x", "number", ["five"])]}, "body.x: "),
        ({"data": [_data("body.x", "bool", ["yes"])]}, "true or false"),
        ({"data": [_data("body.x", "string", ["a.b"], comparator="!=")]}, "!= with a regular expression"),
        ({"data": [_data("body.x", "string", ["a"], template="{{ . }}")]}, "template has no counterpart"),
        ({"data": [_data("body.x", "string", ["a"]), _data("body.x", "string", ["b"])]}, "two filters on one path"),
    ],
)
def test_argo_filters_without_a_counterpart_are_reported_and_give_nothing(filters, part):
    found, report = _one(_sensor(filters))

    assert found.subscriptions == {}
    assert any(part in text for text in report.not_carried_over)


@pytest.mark.parametrize("text", ["", "{", "[]", "a: [b"])
def test_a_file_without_a_rule_is_refused(text):
    with pytest.raises(Invalid):
        import_rules(text)


def test_a_document_of_another_kind_is_reported():
    _, report = _one("kind: Deployment\nmetadata: {name: web}")

    assert report.rule == "web"
    assert "no EventBridge rule" in report.not_carried_over[0]


def test_two_rules_of_one_name_get_two_names():
    found = import_rules('[{"Name": "a", "EventPattern": {"x": [1]}}, {"Name": "A", "EventPattern": {"x": [2]}}]')

    assert list(found.subscriptions) == ["a", "a-2"]
