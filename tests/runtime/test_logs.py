import io
import json
import logging

import pytest
import structlog
from pydantic import SecretStr

from runtime.logs import configure_logs


class Stream(io.TextIOWrapper):
    """A text stream over bytes, as a process's stderr is."""

    def __init__(self, *, terminal=False):
        super().__init__(io.BytesIO(), write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def text(self):
        return self.buffer.getvalue().decode()

    def lines(self):
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture(autouse=True)
def restore():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_one_json_object():
    out = Stream()
    configure_logs("info", form="json", stream=out)

    structlog.get_logger().info("serving", roles=["api"], port=8081)

    [line] = out.lines()
    assert line.pop("at").endswith("Z")
    assert line == {"event": "serving", "level": "info", "roles": ["api"], "port": 8081}


def test_a_line_below_the_level_is_not_written():
    out = Stream()
    configure_logs("warning", form="json", stream=out)

    structlog.get_logger().info("serving")
    structlog.get_logger().warning("draining")

    assert [line["event"] for line in out.lines()] == ["draining"]


def test_what_names_a_secret_or_is_one_is_blotted_out():
    out = Stream()
    configure_logs("info", form="json", stream=out)

    structlog.get_logger().info(
        "serving", secret="hunter2", authorization="Bearer hunter2", key=SecretStr("hunter2"), raw=b"hunter2"
    )

    assert "hunter2" not in out.text()
    assert out.lines()[0]["secret"] == "[redacted]"


def test_a_traceback_is_structured_and_shows_no_local_variables():
    out = Stream()
    configure_logs("info", form="json", stream=out)

    def fails():
        password = "hunter" + "2"
        raise ZeroDivisionError(len(password))

    try:
        fails()
    except ZeroDivisionError:
        structlog.get_logger().exception("worker_crashed")

    [line] = out.lines()
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "hunter2" not in out.text()


def test_a_librarys_warning_becomes_a_line_of_ours_with_its_name():
    out = Stream()
    configure_logs("info", form="json", stream=out)

    logging.getLogger("aiokafka.consumer").warning("lost %s", "broker")
    logging.getLogger("aiokafka.consumer").info("chatter")

    [line] = out.lines()
    assert (line["event"], line["logger"], line["line"], line["level"]) == (
        "library",
        "aiokafka.consumer",
        "lost broker",
        "warning",
    )


def test_on_a_terminal_lines_are_for_people():
    out = Stream(terminal=True)
    configure_logs("info", stream=out)

    structlog.get_logger().info("serving", port=8081)
    logging.getLogger("aiohttp").warning("odd")

    assert "serving" in out.text()
    assert "8081" in out.text()
    assert not out.text().startswith("{")


def test_elsewhere_they_are_json():
    out = Stream()
    configure_logs("info", stream=out)

    structlog.get_logger().info("serving")

    assert out.lines()[0]["event"] == "serving"
