"""Commands about a team's quota."""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli_base import AsJson, ask, group
from control.output import Output, fields

quota = group("How many attempts the team's agents may make together.")


@quota.command("show")
def show_quota(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """The quota, and how much of the present span is given out to dispatchers."""
    found = ask(ctx, "GET", "/v1/quota")
    Output(as_json=as_json).document(found, lambda: fields(found))


@quota.command("set")
def set_quota(
    ctx: typer.Context,
    attempts: Annotated[int, typer.Argument(help="So many attempts.")],
    per: Annotated[str, typer.Argument(help="In each span so long: 1m, 1h, 1d.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Set the quota."""
    found = ask(ctx, "PUT", "/v1/quota", body={"attempts": attempts, "per": per})
    Output(as_json=as_json).document(found, lambda: fields({"attempts": attempts, "per": per}))


@quota.command("clear")
def clear_quota(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Let the team make as many attempts as its agents take."""
    found = ask(ctx, "DELETE", "/v1/quota")
    Output(as_json=as_json).document(found, lambda: fields({"quota": "none"}))
