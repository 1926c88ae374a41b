"""The command that reads rules of other systems: import-rules."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml

from control.cli_base import AsJson, no, text_of
from control.output import Output, plain


def import_rules(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="EventBridge rules (JSON, CloudFormation), Knative Triggers or Argo sensors; - for stdin."
        ),
    ],
    *,
    agent: Annotated[str, typer.Option("--agent", "-a", metavar="NAME", help="The agent that they are to wake.")],
    as_json: AsJson = False,
) -> None:
    """Write another system's rules as subscriptions on stdout, and on stderr what could not be carried over.

    Exit 1 says that some rule gave no subscription.
    """
    from router.rules_import import import_rules as imported_from

    found = imported_from(text_of(file), agent=agent)
    out = Output(as_json=as_json)
    reports = [report.as_json() for report in found.reports]
    if as_json:
        out.json_line({"file": found.as_file(), "reports": reports})
    else:
        typer.echo(yaml.safe_dump(found.as_file(), sort_keys=False, allow_unicode=True), nl=False)
        for report in reports:
            _tell(out, report)
    if any("subscription" not in report for report in reports):
        raise no()


def _tell(out: Output, report: dict[str, Any]) -> None:
    name = report.get("subscription")
    out.say(f"{plain(report['rule'])}: {f'subscription {name}' if name else 'gives no subscription'}")
    for line in report.get("not_carried_over", ()):
        out.say(f"  not carried over: {plain(line)}", style="yellow")
    for line in report.get("notes", ()):
        out.say(f"  {plain(line)}")
