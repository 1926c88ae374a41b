"""How a process writes its log: structured lines, JSON for machines or plain for a terminal, never a secret."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, BinaryIO, TextIO

import orjson
import structlog
from pydantic import SecretStr
from structlog.typing import Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
NEVER_WRITTEN = frozenset(
    {
        "secret",
        "secrets",
        "password",
        "authorization",
        "cookie",
        "api_key",
        "token",
        "master_key",
        "private_key",
        "body",
        "headers",
    }
)
REDACTED = "[redacted]"

EVENTS = frozenset(
    {
        # a process
        "serving",
        "listening",
        "applied",
        "draining",
        "stopped",
        "stopped_at_once",
        "crash_limit",
        # its parts
        "worker_crashed",
        "worker_waits",
        "worker_held",
        "part_stop_failed",
        "part_stop_timed_out",
        "library",
        # the log
        "log_out_of_reach",
        "log_opened",
        "log_closed",
        "log_append_failed",
        "reader_stalled",
        "reader_stop_failed",
        "producer_replaced",
        "producer_stop_failed",
        # the spool
        "spool_found",
        "spool_begins",
        "spool_waits",
        "spool_drained",
        "spool_record_damaged",
        "spool_record_refused",
        # the router
        "router_waits",
        "rules_loaded",
        "rules_not_loaded",
        "router_fenced",
        "cursor_lost",
        "record_failed",
        "record_set_aside",
        "topics_not_made",
        # the dispatcher
        "attempt",
        "agent_held",
        "agent_released",
        "lane_blocked",
        "lanes_gathered",
        "run_over",
        "fell_back",
        # the API
        "api_failed",
        # upkeep
        "outcomes_wait",
        "loop_cut",
        "retention_swept",
        "days_made",
        "retention_waits",
        "store_swept",
        "tending_waits",
        "conservation_gap",
        "lag_unknown",
        "duty_taken",
    }
)
"""The names that a line may have, over all packages; a test reads the sources and compares."""


def configure_logs(level: str, *, form: str | None = None, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process: `form` is `json`, `console`, or by the terminal.

    A line below `level` costs one method call that does nothing.  Libraries' own lines are taken from warnings on.
    """
    out = stream or sys.stderr
    is_console = form == "console" or (form is None and out.isatty())
    finish: list[Processor] = _console_end(out) if is_console else _json_end()
    structlog.configure(
        processors=[*_BEGIN, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out) if is_console else structlog.BytesLoggerFactory(_bytes_of(out)),
        cache_logger_on_first_use=True,
    )
    _route_libraries(out, is_console=is_console, level=max(LEVELS[level], logging.WARNING))


def without_secrets(_logger: WrappedLogger | None, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The line with what names or holds a secret blotted out."""
    if not NEVER_WRITTEN.isdisjoint(line):
        for name in NEVER_WRITTEN.intersection(line):
            line[name] = REDACTED
    return line


_BEGIN: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    without_secrets,
]
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    # Local variables hold bodies and secrets: they stay out.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
)


def _json_end() -> list[Processor]:
    return [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_dumps)]


def _console_end(out: TextIO) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain, timestamp_key="at")]


def _dumps(line: Any, **_: Any) -> bytes:
    return orjson.dumps(line, default=_plain)


def _plain(value: Any) -> str:
    return REDACTED if isinstance(value, SecretStr | bytes) else str(value)


def _bytes_of(out: TextIO) -> BinaryIO:
    return out.buffer


def _route_libraries(out: TextIO, *, is_console: bool, level: int) -> None:
    end: list[Processor] = (
        _console_end(out) if is_console else [_TRACEBACKS, structlog.processors.JSONRenderer(serializer=_text)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.processors.add_log_level, _named, *_BEGIN[2:]],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
    )
    channel = logging.StreamHandler(out)
    channel.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [channel]
    root.setLevel(level)


def _named(_logger: WrappedLogger | None, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # A library's sentence is no event name of ours: it becomes the field `line` of the one event `library`.
    record: logging.LogRecord = line["_record"]
    line["line"], line["event"], line["logger"] = line["event"], "library", record.name
    return line


def _text(line: Any, **options: Any) -> str:
    return _dumps(line, **options).decode()
