"""The command `nightbell`: what starts a process, beside the commands that control offers."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from control.cli import app
from control.cli_base import RUN, AsJson, no, wait_for
from control.client import Api, Connection, Means
from control.output import Column, Output
from schemas.errors import Invalid

if TYPE_CHECKING:  # what a command needs is imported where it is used, so that each starts fast
    from control.documents import Checks
    from runtime.settings import Settings

MOVE_COLUMNS: tuple[Column, ...] = (
    ("table", "table"),
    ("rows", "rows"),
    ("arrived", "arrived"),
    ("digest", "digest"),
    ("whole", "whole"),
)
FINDING_COLUMNS: tuple[Column, ...] = (("", "level"), ("what", "subject"), ("found", "message"), ("to mend it", "advice"))


@cache
def settings() -> Settings:
    """The settings of this process, read when the first command needs them."""
    from runtime.settings import load_settings

    return load_settings()


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        sys.stdout.write(version_of("nightbell") + "\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The night bell of an agent team: webhooks ring it, and it wakes the one agent that should act."""
    del version  # its callback printed it


@app.command(rich_help_panel=RUN)
def serve(
    roles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ingest] [router] [dispatcher] [api] | all", help="The roles to run; default: all."),
    ] = None,
    *,
    apply: Annotated[
        list[Path] | None, typer.Option("--apply", help="Apply this configuration file first; may be repeated.")
    ] = None,
) -> None:
    """Run roles until stopped: SIGTERM drains, a second one stops at once."""
    from runtime.logs import configure_logs
    from runtime.wiring import serve as serve_roles

    wanted = roles_of(roles or ["all"])
    found = settings()
    configure_logs(found.log_level, form=found.log_format)
    code = _run_fast(serve_roles(found, wanted, apply_files=apply or []))
    raise typer.Exit(code)


def roles_of(words: list[str]) -> frozenset[str]:
    """The roles that these words name.  Raises `Invalid`."""
    from runtime.settings import ROLES

    if strange := sorted(set(words) - ROLES - {"all"}):
        raise Invalid(f"there is no role {', '.join(strange)}; the roles are {', '.join(sorted(ROLES))}, and all")
    return ROLES if "all" in words else frozenset(words)


def _run_fast(work: Any) -> int:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: asyncio's own loop does, slower
        return int(wait_for(work))
    return int(uvloop.run(work))


@app.command(rich_help_panel=RUN)
def migrate(*, as_json: AsJson = False) -> None:
    """Bring the store's schema up to this version."""
    from runtime.inspection import migrate as migrate_store

    answer = wait_for(migrate_store(settings()))
    Output(as_json=as_json).document(answer, lambda: Text(f"the store's schema is {answer.get('revision')}"))


@app.command(rich_help_panel=RUN)
def move(
    folder: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="The data folder of the stopped embedded installation.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Carry an embedded installation to the Kafka and PostgreSQL that the settings name, and prove that nothing is missing."""
    from runtime.logs import configure_logs
    from runtime.moving import move as move_all

    configure_logs("warning", form=settings().log_format)
    output = Output(as_json=as_json)
    with output.progress("moving") as meter:
        done: dict[str, int] = {}

        def told(what: str, count: int) -> None:
            done[what] = done.get(what, 0) + count
            meter(sum(done.values()), 0)

        carried = wait_for(move_all(settings(), folder, told=told))
    output.items(
        [
            {"table": each.table, "rows": each.before.count, "arrived": each.after.count, "digest": each.after.digest[:16],
             "whole": each.is_whole}
            for each in carried
        ],
        MOVE_COLUMNS, none="there was nothing to move",
    )  # fmt: skip
    if not all(each.is_whole for each in carried):
        raise no()


@app.command(rich_help_panel=RUN)
def check(*, as_json: AsJson = False) -> None:
    """Check settings, log, store, sources and agents, and say what to mend."""
    from runtime.inspection import check as check_all

    findings = wait_for(check_all(settings()))
    Output(as_json=as_json).items(findings, FINDING_COLUMNS, none="all is well")
    if any(finding.get("level") == "error" for finding in findings):
        raise no()


def means() -> Means:
    """What this process gives the commands of control."""
    return Means(
        connection=_connection,
        open_store=_open_store,
        checks=_checks,
        create_local_key=_create_local_key,
        environment=os.environ,
    )


def _connection() -> Connection:
    from runtime.keyfiles import api_key

    found = settings()
    return Connection(
        url=found.api_url or _written_address(found) or _local_url(found.api_bind),
        ingest_url=found.ingest_url or _local_url(found.ingest_bind),
        key=api_key(found),
        is_embedded=found.is_embedded,
    )


def _written_address(found: Settings) -> str | None:
    from runtime.keyfiles import address_path

    path = address_path(found)
    return path.read_text().strip() if path.is_file() else None


def _local_url(bind: str) -> str:
    from runtime.settings import address_of

    host, port = address_of(bind)
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what listens everywhere is reached here
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


@asynccontextmanager
async def _open_store() -> AsyncIterator[Api]:
    from runtime.desk import open_desk

    async with open_desk(settings(), read_only=True) as api:
        yield api


def _checks() -> Checks:
    from runtime.desk import config_checks

    return config_checks()


async def _create_local_key(*, name: str, role: str, agent: str | None, expires_at: str | None) -> Mapping[str, Any]:
    from runtime.desk import create_local_key

    return await create_local_key(settings(), name=name, role=role, agent=agent, expires_at=expires_at)


def main() -> None:
    """Run the command line; the process's exit code is the command's."""
    app(obj=means())


if __name__ == "__main__":
    main()
