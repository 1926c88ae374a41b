"""Commands about API keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import typer
from rich.text import Text

from control.cli_base import AsJson, ask, gather, group, instant_of, means_of, now_ms, quoted, wait_for
from control.client import Means
from control.output import Column, Output
from schemas.errors import Invalid

keys = group("API keys: who may ask and change what.")

KEY_COLUMNS: tuple[Column, ...] = (
    ("id", "id"),
    ("name", "name"),
    ("role", "role"),
    ("made", "created_at"),
    ("expires", "expires_at"),
    ("revoked", "revoked_at"),
)
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")]
Role = Literal["viewer", "operator", "admin", "agent"]  # as `control.auth` has them, which opens the store's rooms too
ROLES: tuple[str, ...] = get_args(Role)
KeyRole = Annotated[Role, typer.Option("--role", help="What it may do.")]
Expiry = Annotated[str | None, typer.Option("--expires", help="Until when: an instant (ISO 8601), or a span, as in 90d.")]
AgentOfKey = Annotated[str | None, typer.Option("--agent", help="With --role agent: whose calls it opens.")]


@keys.command("create")
def create_key(
    ctx: typer.Context,
    name: KeyName,
    *,
    role: KeyRole = "viewer",
    expires: Expiry = None,
    agent: AgentOfKey = None,
    local: Annotated[bool, typer.Option("--local", help="Make it in the store itself: for when no server runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    if (role == "agent") != (agent is not None):
        raise Invalid("--role agent and --agent NAME go together")
    wanted = {"name": name, "role": role, "agent": agent, "expires_at": instant_of(expires, now_ms=now_ms(), ahead=True)}
    if local:
        answer = wait_for(_made_locally(means_of(ctx), wanted))
    else:
        answer = ask(ctx, "POST", "/v1/keys", body={key: value for key, value in wanted.items() if value is not None})
    Output(as_json=as_json).document(answer, lambda: Text(str(answer.get("key"))))


async def _made_locally(means: Means, wanted: dict[str, Any]) -> Mapping[str, Any]:
    return await means.create_local_key(**wanted)


@keys.command("list")
def list_keys(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """All keys, without what only their owners know."""
    Output(as_json=as_json).items(gather(ctx, "/v1/keys", {}), KEY_COLUMNS, none="no keys yet: nightbell keys create NAME")


@keys.command("revoke")
def revoke_key(ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False) -> None:
    """End a key, within a second."""
    answer = ask(ctx, "DELETE", f"/v1/keys/{quoted(key_id)}") or {"id": key_id, "revoked": True}
    Output(as_json=as_json).document(answer, lambda: Text(f"revoked {key_id}"))
