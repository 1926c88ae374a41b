"""The command line: every command of an operator, under the heads that `nightbell --help` shows.

`runtime.main` adds what starts a process (`serve`, `migrate`, `check`) and hands in `Means` as the context's object.
"""

from __future__ import annotations

import typer

from control.cli_base import ACCESS, CONFIGURED, LOOK, RUN, TRY, WORK, Commands
from control.cli_contexts import context, facts, secrets
from control.cli_dead import dead
from control.cli_events import events, explain, listen, trace
from control.cli_import import import_rules
from control.cli_keys import keys
from control.cli_lanes import lanes
from control.cli_objects import agents, apply, sources, subscriptions
from control.cli_providers import providers
from control.cli_quota import quota
from control.cli_send import send
from control.cli_try import curate, match
from control.cli_work import invocations, redrive, replay

app = typer.Typer(
    name="nightbell",
    cls=Commands,
    help="The night bell of an agent team: webhooks ring it, and it wakes the one agent that should act.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and those hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=RUN)(apply)
app.add_typer(sources, name="sources", rich_help_panel=CONFIGURED)
app.add_typer(agents, name="agents", rich_help_panel=CONFIGURED)
app.add_typer(subscriptions, name="subscriptions", rich_help_panel=CONFIGURED)
app.add_typer(providers, name="providers", rich_help_panel=CONFIGURED)
app.add_typer(events, name="events", rich_help_panel=LOOK)
app.add_typer(facts, name="facts", rich_help_panel=LOOK)
app.add_typer(context, name="context", rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK)(trace)
app.command(rich_help_panel=LOOK)(explain)
app.command(rich_help_panel=LOOK)(listen)
app.command(rich_help_panel=TRY)(match)
app.command(rich_help_panel=TRY)(curate)
app.command(rich_help_panel=TRY)(send)
app.command("import-rules", rich_help_panel=TRY)(import_rules)
app.add_typer(invocations, name="invocations", rich_help_panel=WORK)
app.add_typer(quota, name="quota", rich_help_panel=CONFIGURED)
app.add_typer(lanes, name="lanes", rich_help_panel=WORK)
app.add_typer(dead, name="dead", rich_help_panel=WORK)
app.command(rich_help_panel=WORK)(redrive)
app.command(rich_help_panel=WORK)(replay)
app.add_typer(keys, name="keys", rich_help_panel=ACCESS)
app.add_typer(secrets, name="secrets", rich_help_panel=ACCESS)
