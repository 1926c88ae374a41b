"""Commands about what contexts draw on, and what they came to: facts, secrets, context."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from control.cli_base import AsJson, Since, ask, gather, group, instant_of, now_ms, quoted, text_of
from control.output import Column, Output, plain

facts = group("Facts about things, told in later contexts.")
secrets = group("Secrets for the headers of lookups.")
context = group("What contexts spared, and what they lacked.")

FACT_COLUMNS: tuple[Column, ...] = (
    ("name", "name"),
    ("value", lambda row: orjson.dumps(row.get("value")).decode()),
    ("by", "by"),
    ("in", "invocation"),
    ("at", "at"),
    ("expires", "expires_at"),
    ("version", "version"),
)
SUM_COLUMNS: tuple[Column, ...] = (
    ("subscription", "subscription"),
    ("contexts", "contexts"),
    ("whole bodies", "raw_tokens"),
    ("sent", "tokens"),
    ("saved", "saved_tokens"),
    ("lacking", "missing"),
    ("cut", "cut"),
    ("a better view", "suggested_view"),
)
MILLION = 1_000_000
Thing = Annotated[str, typer.Argument(metavar="THING", help="Its ordering key: an event's `partitionkey`.")]
FactName = Annotated[str, typer.Argument(metavar="NAME", help="The fact.")]


@facts.command("list")
def list_facts(
    ctx: typer.Context,
    thing: Thing,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With a name: its versions, newest first.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """The facts about a thing; with a name: has it been done, when, by which invocation."""
    found = gather(ctx, "/v1/facts", {"thing": thing} | ({"name": name} if name else {}), limit=None)
    Output(as_json=as_json).items(found, FACT_COLUMNS, none="no such facts")


@facts.command("put")
def put_fact(
    ctx: typer.Context,
    thing: Thing,
    name: FactName,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or else text; null takes the fact back.")],
    *,
    pinned: Annotated[bool, typer.Option("--pinned", help="Never cut it from a context.")] = False,
    expires: Annotated[str | None, typer.Option("--expires", help="After this span, as in 30d.")] = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Only if this is its version now (0: none).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a fact down."""
    asked = {"thing": thing, "name": name, "pinned": pinned, "expires_in": expires, "after": after}
    body = {key: found for key, found in asked.items() if found is not None} | {"value": _value(value)}
    answer = ask(ctx, "PUT", "/v1/facts", body=body)
    Output(as_json=as_json).document(answer, lambda: Text(f"{plain(answer['name'])} has version {answer['version']}"))


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


@secrets.command("list")
def list_secrets(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """The names of the secrets; their values are never shown."""
    found = gather(ctx, "/v1/secrets", {}, limit=None)
    Output(as_json=as_json).items(found, (("name", "name"), ("changed", "updated_at")), none="no secrets")


@secrets.command("put")
def put_secret(ctx: typer.Context, name: FactName, *, as_json: AsJson = False) -> None:
    """Keep what stdin holds as a secret; `${secret.NAME}` stands for it in the headers of lookups."""
    answer = ask(ctx, "PUT", f"/v1/secrets/{quoted(name)}", body={"value": text_of("-").rstrip("\r\n")})
    Output(as_json=as_json).document(answer, lambda: Text(f"{name} is kept"))


@secrets.command("delete")
def delete_secret(ctx: typer.Context, name: FactName, *, as_json: AsJson = False) -> None:
    """Forget a secret."""
    answer = ask(ctx, "DELETE", f"/v1/secrets/{quoted(name)}")
    Output(as_json=as_json).document(answer, lambda: Text(f"{name} is gone"))


@context.command("stats")
def context_stats(
    ctx: typer.Context,
    *,
    since: Since = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0, help="What a million tokens of input cost you: adds the money saved.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tokens that contexts saved against whole bodies (estimated), by subscription; a view that would have saved fetches."""
    moment = instant_of(since, now_ms=now_ms())
    found = gather(ctx, "/v1/contexts/stats", {"since": moment} if moment else {}, limit=None)
    columns = SUM_COLUMNS
    if price is not None:
        found = [{**row, "saved_money": round(row["saved_tokens"] * price / MILLION, 4)} for row in found]
        columns = (*SUM_COLUMNS[:5], ("money", "saved_money"), *SUM_COLUMNS[5:])
    Output(as_json=as_json).items(found, columns, none="no contexts were made")


@context.command("calibration")
def context_calibration(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """How many tokens each model family makes of a text, against o200k: learnt from what agents report of their runs."""
    found = gather(ctx, "/v1/contexts/calibrations", {}, limit=None)
    columns = [(name.replace("_", " "), name) for name in ("family", "factor", "is_learnt", "version", "samples", "updated_at")]
    Output(as_json=as_json).items(found, columns, none="no agent reported its tokens")
