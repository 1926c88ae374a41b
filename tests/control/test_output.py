import io

import pytest
from rich.text import Text

from control.exits import EXIT_CODES, exit_code
from control.output import Output, fields, plain
from control.timeline import span
from schemas import errors


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (0.5, "0.5"),
        (7, "7"),
        ("text", "text"),
        (["a", 1], '["a",1]'),
        ("a\x1b[2Jb\x07", "a·[2Jb·"),
        ("a\nb\tc", "a⏎b c"),
        ("\u202eevil\u200b", "·evil·"),
        ("é中🙂", "é中🙂"),
    ],
)
def test_what_is_shown_is_one_plain_line(value, shown):
    assert plain(value) == shown


def test_json_is_the_only_thing_on_stdout(capsys):
    out = Output(as_json=True)

    out.document({"a": 1}, lambda: Text("drawn"))
    out.say("a word")
    with out.progress("work") as meter:
        meter(1, 2)

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{"a":1}\n', "a word\n")


def test_people_get_the_drawing(capsys):
    Output().document({"a": 1}, lambda: Text("drawn"))

    assert capsys.readouterr().out == "drawn\n"


def test_markup_of_outsiders_is_shown_and_not_obeyed(capsys):
    Output().show(fields({"summary": "[red]alarm[/red] [link=http://x]y[/link]"}))

    assert "[red]alarm[/red] [link=http://x]y[/link]" in capsys.readouterr().out


def test_on_a_terminal_progress_is_shown(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    out = Output()

    with out.progress("redriven") as meter:
        meter(3, 7)

    assert out.is_lively
    assert "redriven" in err.getvalue()
    assert "3/7" in err.getvalue()


@pytest.mark.parametrize(
    ("elapsed_ms", "shown"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (61_000, "1 m 1 s"), (3_700_000, "1 h 1 m"), (90_000_000, "1 d 1 h")],
)
def test_a_span_is_shown_in_its_two_largest_units(elapsed_ms, shown):
    assert span(elapsed_ms) == shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Invalid, 2),
        (errors.MalformedRequest, 2),
        (errors.BadSignature, 1),
        (errors.Conflict, 1),
        (errors.NotFound, 3),
        (errors.Unauthenticated, 4),
        (errors.NotAllowed, 4),
        (errors.AddressRefused, 4),
        (errors.StoreUnavailable, 5),
        (errors.AgentTimedOut, 5),
        (errors.FencedOut, 5),
        (errors.BadSetting, 2),
    ],
)
def test_each_family_of_errors_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_no_error_of_the_tree_is_without_an_exit_code():
    def classes(root):
        yield root
        for child in root.__subclasses__():
            yield from classes(child)

    own = [
        kind
        for kind in classes(errors.NightbellError)
        if kind.__module__ == "schemas.errors" and kind is not errors.NightbellError
    ]

    assert all(any(parent in EXIT_CODES for parent in kind.__mro__) for kind in own)
    assert {exit_code(kind) for kind in own} == {1, 2, 3, 4, 5}
