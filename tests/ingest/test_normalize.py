"""From a proven request to events: batches, identities, keys, and text that is fit to be kept."""

from __future__ import annotations

import orjson
import pytest

from ingest.inbound import Request
from ingest.normalize import to_events
from ingest.schemes.base import Proof
from schemas.errors import Invalid, MalformedRequest, TooLarge
from schemas.event import Event
from tests.fakes.provider_forms import MAC, provider, source

NOW_MS = 1_750_000_000_000


def events(
    made, document: object, *, headers=(), proof: Proof | None = None, name: str = "src", now_ms: int = NOW_MS
) -> list[Event]:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    request = Request("POST", "https://h/in/src", [("Content-Type", "application/json"), *headers], body)
    return to_events(request, source(made, name=name), proof or Proof(), now_ms, traceparent="00-t")


BATCH = provider(
    MAC, event='type = "{/t}"\nbatch = "/items/*"\nkey = "{/on}"', identity='kind = "delivery"\ndelivery = "{/id}"'
)


def test_a_batch_is_split_and_each_item_has_its_id_and_pointer():
    found = events(BATCH, {"items": [{"id": "a", "t": "x", "on": "1"}, {"id": "b", "t": "y", "on": "1"}]})

    assert [(event.type, event.pointer, event.partitionkey) for event in found] == [
        ("made.x", "/items/0", "default/src/1"),
        ("made.y", "/items/1", "default/src/1"),
    ]
    assert found[0].id != found[1].id
    assert found[0].body == found[1].body


def test_an_item_is_the_same_event_in_another_batch():
    alone = events(BATCH, {"items": [{"id": "b", "t": "y"}]})
    together = events(BATCH, {"items": [{"id": "a", "t": "x"}, {"id": "b", "t": "y"}]})

    assert alone[0].id == together[1].id


def test_two_items_with_one_id_are_two_events():
    found = events(BATCH, {"items": [{"id": "a", "t": "x"}, {"id": "a", "t": "x"}]})

    assert len({event.id for event in found}) == 2


def test_an_empty_batch_is_no_event_and_a_body_without_one_is_one():
    assert events(BATCH, {"items": []}) == []
    assert [event.pointer for event in events(BATCH, {"t": "x", "id": "1"})] == [""]


def test_a_bare_thing_where_a_batch_may_be_is_one_event():
    made = provider(MAC, event='type = "{/t}"\nbatch = "/*"')

    assert [event.pointer for event in events(made, {"t": "x"})] == [""]
    assert [event.pointer for event in events(made, [{"t": "x"}, {"t": "y"}])] == ["/0", "/1"]


def test_a_batch_without_end_is_refused():
    with pytest.raises(TooLarge):
        events(BATCH, {"items": [{"id": str(number)} for number in range(5001)]})


def test_a_missing_delivery_id_falls_back_on_the_signed_time_then_on_the_body():
    named = events(BATCH, {"id": "1", "t": "x"})[0]
    timed = events(BATCH, {"t": "x"}, proof=Proof(signed_ms=5))[0]
    later = events(BATCH, {"t": "x"}, proof=Proof(signed_ms=6))[0]
    bare = events(BATCH, {"t": "x"})[0]

    assert len({named.id, timed.id, later.id, bare.id}) == 4


def test_the_identity_of_a_body_does_not_know_when_it_came_but_has_its_window():
    made = provider(MAC, identity='kind = "body"\nwindow = "10m"')

    first, later = events(made, {"type": "x"})[0], events(made, {"type": "x"}, now_ms=NOW_MS + 60_000)[0]

    assert first.id == later.id
    assert first.identity_window_ms == 600_000
    assert events(made, {"type": "x", "more": 1})[0].id != first.id


def test_the_same_request_at_another_source_is_another_event():
    assert events(BATCH, {"id": "1"}, name="one")[0].id != events(BATCH, {"id": "1"}, name="two")[0].id


def test_without_a_subject_each_event_is_its_own_key():
    event = events(BATCH, {"id": "1", "t": "x"})[0]

    assert event.partitionkey == event.id


def test_attributes_hold_no_control_characters_and_the_body_stays():
    made = provider(MAC, event='type = "{/t}"\nsubject = "{/s}"\nactor = "{/a}"\nurl = "{/u}"\nsummary = "{/s}"')
    document = {"t": "a b\u0000c\n", "s": "x\u0000y\u2028z\x1b[0m", "a": "\u202e" * 10, "u": "javascript:alert(1)"}

    event = events(made, document)[0]

    assert event.type == "made.a_b_c"
    assert event.subject == "x y z [0m"
    assert event.url == ""
    assert event.body == orjson.dumps(document)
    assert "\x00" not in "".join(map(str, event.envelope().values()))


def test_a_long_subject_is_cut_and_two_long_ones_stay_two():
    made = provider(MAC, event='type = "x"\nkey = "{/s}"')

    one, two = events(made, {"s": "a" * 5000 + "1"})[0], events(made, {"s": "a" * 5000 + "2"})[0]

    assert len(one.partitionkey) < 400
    assert one.partitionkey != two.partitionkey


def test_a_type_that_nothing_names_is_unknown_and_the_event_is_kept():
    assert events(provider(MAC), {"no": "type"})[0].type == "made.unknown"
    assert events(provider(MAC), b"[1,2]")[0].type == "made.unknown"
    assert events(provider(MAC), b"null")[0].type == "made.unknown"


def test_ambiguous_json_is_taken_and_flagged():
    event = events(provider(MAC), b'{"type":"a","type":"b"}')[0]

    assert (event.type, event.flags) == ("made.b", ("ambiguous_json",))


def test_a_time_that_makes_no_sense_is_the_time_of_receipt():
    made = provider(MAC, event='type = "x"\ntime = "{/at}"')

    assert events(made, {"at": "soon"})[0].time_ms == NOW_MS
    assert events(made, {"at": 1_749_999_999})[0].time_ms == 1_749_999_999_000


def test_alternatives_may_be_bound_to_types():
    made = provider(
        MAC,
        '[kinds]\n"note.*" = "comment.created"\n"note.deleted" = "comment.deleted"',
        event='type = "{/t}"\nsubject = [{value = "note/{/id}", types = ["note.*"]}, "thing/{/id}"]',
    )

    assert [events(made, {"t": t, "id": 7})[0].subject for t in ("note.made", "other")] == ["note/7", "thing/7"]
    assert [events(made, {"t": t})[0].kind for t in ("note.made", "note.deleted", "other")] == [
        "comment.created",
        "comment.deleted",
        "",
    ]


def test_items_that_the_file_skips_are_no_events():
    made = provider(MAC, event='type = "{/t}"\nbatch = "/*"\nskip = [{value = "{/t}", equals = "noise"}]')

    assert [event.type for event in events(made, [{"t": "noise"}, {"t": "x"}])] == ["made.x"]


def test_a_kind_may_depend_on_more_than_the_type():
    made = provider(
        MAC,
        '[kinds]\n"task.changed" = "ticket.updated"\n',
        event='type = "{/type}"\nkind = [{value = "ticket.closed", types = ["task.*"], when = [{value = "{/done}", equals = "true"}]}]',
    )

    assert events(made, {"type": "task.changed", "done": True})[0].kind == "ticket.closed"
    assert events(made, {"type": "task.changed", "done": False})[0].kind == "ticket.updated"
    assert events(made, {"type": "list.changed", "done": True})[0].kind == ""


def test_a_kind_outside_the_vocabulary_is_said_when_the_file_is_read():
    with pytest.raises(Invalid, match="no kind of the vocabulary"):
        provider(MAC, event='type = "{/type}"\nkind = "ticket.finished"')


def test_an_array_is_a_batch_only_where_the_file_says_so():
    made = provider(
        MAC,
        event='type = "made"\nbatch = "/*"\nbatch_when = [{value = "{header:X-Mode}", equals = "batch"}]',
    )

    assert len(events(made, [1, 2], headers=[("X-Mode", "batch")])) == 2
    assert [event.pointer for event in events(made, [1, 2])] == [""]


def test_a_header_that_does_not_fit_the_body_is_refused():
    made = provider(MAC, event='type = "{header:X-Event}"\nshape = [{types = ["issue*"], present = "/issue"}]')

    assert events(made, {"issue": {}}, headers=[("X-Event", "issues")])[0].type == "made.issues"
    with pytest.raises(MalformedRequest):
        events(made, {"push": {}}, headers=[("X-Event", "issues")])


NESTED = provider(
    MAC,
    event="""
batch = ["/entry/*/changes/*", "/entry/*/changes/*/messages/*"]
type = ["{up:1#}.{up:2/field}", "{/field}"]
key = "{up:4/id}"
summary = ["{up:9/id}", "{up:2/gone}", "none"]
""",
)


def test_of_nested_items_the_innermost_are_the_events_and_see_what_they_lie_in():
    document = {
        "entry": [
            {"id": 7, "changes": [{"field": "chat", "messages": [{"n": 1}, {"n": 2}]}, {"field": "account", "messages": []}]},
        ]
    }

    found = events(NESTED, document)

    assert [(event.type, event.pointer) for event in found] == [
        ("made.account", "/entry/0/changes/1"),
        ("made.messages.chat", "/entry/0/changes/0/messages/0"),
        ("made.messages.chat", "/entry/0/changes/0/messages/1"),
    ]
    assert [event.partitionkey for event in found[1:]] == ["default/src/7", "default/src/7"]
    assert {event.summary for event in found} == {"none"}


@pytest.mark.parametrize("wrong", ["{up:a/b}", "{up:}", "{up:1#/b}", "{up:1b}"])
def test_a_relative_pointer_that_is_none_is_said_when_the_file_is_read(wrong: str):
    with pytest.raises(Invalid, match="up:"):
        provider(MAC, event=f'type = "{wrong}"')


def test_an_id_in_a_header_that_is_no_utf8_is_an_identity_all_the_same():
    made = provider(MAC.replace("{body}", "{header:X-Id}{body}"), identity='kind = "delivery"\ndelivery = "{header:X-Id}"')
    odd = Request("POST", "https://h/in/src", [("X-Id", "a\udc80"), ("Content-Type", "application/json")], b"{}")
    other = Request("POST", "https://h/in/src", [("X-Id", "a\udc81"), ("Content-Type", "application/json")], b"{}")

    ids = {to_events(request, source(made), None, 1_750_000_000_000)[0].id for request in (odd, odd, other)}

    assert len(ids) == 2
