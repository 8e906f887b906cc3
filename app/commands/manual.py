"""`meterline throttle` and `meterline budget`: manual overrides, with reason and end."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.printable import visible
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.wiring import kafka_config
from meterline.control import manual as manual_control
from meterline.control.manual import ManualChange, ManualOrder
from meterline.schemas.errors import UserError
from meterline.schemas.money import MoneyError, nano_from_usd, usd_display
from meterline.schemas.periods import parse_rfc3339, rfc3339
from meterline.schemas.policy import PolicyObject
from meterline.schemas.policy_entry import read_duration
from meterline.schemas.throttle import ThrottleMode

_out = Console(highlight=False)
throttle = typer.Typer(help="Manual throttles and blocks.", no_args_is_help=True)
budget = typer.Typer(help="Temporary budget overrides.", no_args_is_help=True)

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="Scope, such as key:acme/k-17.")]
Reason = Annotated[str, typer.Option(help="Reason, shown by the audit log and `explain`.")]
Actor = Annotated[str, typer.Option(help="Actor for the audit log; default: your user name.")]
Until = Annotated[
    str, typer.Option(help="End: 30m, 2h, 1d from now, or a time such as 2026-11-21T18:00Z.")
]


class Restriction(StrEnum):
    """What a manual throttle does to requests."""

    BLOCK = "block"
    REJECT = "reject"
    QUEUE = "queue"
    REDIRECT = "redirect"


class BudgetPeriod(StrEnum):
    """The budget that is overridden."""

    MONTH = "month"
    DAY = "day"


def read_until(text: str, at_ms: int) -> int:
    """Read a time, or a duration from now, as UTC ms; UserError if it is neither."""
    try:
        return at_ms + read_duration(text) * 1000
    except ValueError:
        pass
    try:
        return parse_rfc3339(text)
    except ValueError:
        message = f"--until {text}: write 30m, 2h, 1d or a time with its offset, 2026-11-21T18:00Z"
        raise UserError(message) from None


def _order(actor: str, reason: str, until: str = "") -> ManualOrder:
    at_ms = now_ms()
    until_ms = read_until(until, at_ms) if until else 0
    return ManualOrder(actor or getpass.getuser(), reason, at_ms, until_ms)


def _carry_out(
    data: Path,
    order: ManualOrder,
    decide: Callable[[Mapping[str, PolicyObject]], ManualChange],
    text: str,
    *,
    json_output: bool,
) -> None:
    """Decide by what is published now, publish the change, and print it."""
    config = kafka_config(load_settings(data), "manual")
    change = decide(manual_control.read(config))
    manual_control.publish_manual_change(config, change, order)
    if json_output:
        print_json({"action": change.action, "object": change.after.model_dump(mode="json")})
    else:
        _out.print(visible(text), soft_wrap=True, markup=False, emoji=False)


def _lift(
    data: Path,
    scope: str,
    order: ManualOrder,
    lift: Callable[[Mapping[str, PolicyObject], str, ManualOrder], ManualChange],
    text: str,
    *,
    json_output: bool,
) -> None:
    """End a manual throttle or a budget override of a scope."""
    _carry_out(
        data, order, lambda policies: lift(policies, scope, order), text, json_output=json_output
    )


@throttle.command("set")
def throttle_set(
    scope: Scope,
    reason: Reason,
    until: Until,
    mode: Annotated[
        Restriction,
        typer.Option(
            help="What happens to requests: blocked, or what over the limits is rejected, "
            "queued or redirected."
        ),
    ],
    percent: Annotated[
        int,
        typer.Option(min=1, max=99, help="Percentage of the limits that stays, unless blocked."),
    ] = 50,
    actor: Actor = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Throttle or block a scope for at most 24 hours; the stricter of this and the rules holds."""
    order = _order(actor, reason, until)
    blocks = mode is Restriction.BLOCK
    how = ThrottleMode.REJECT if blocks else ThrottleMode(mode.value)
    admit = 0 if blocks else percent
    effect = "blocked" if blocks else f"throttled to {percent} % ({how.value})"
    _carry_out(
        data,
        order,
        lambda policies: manual_control.set_throttle(policies, scope, admit, how, order),
        f"{scope}: {effect} until {rfc3339(order.until_ms)}",
        json_output=json_output,
    )


@throttle.command("release")
def throttle_release(
    scope: Scope,
    reason: Reason,
    actor: Actor = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Release a manual throttle; what the rules command stays in force."""
    lift = manual_control.release_throttle
    text = f"{scope}: manual throttle released"
    _lift(data, scope, _order(actor, reason), lift, text, json_output=json_output)


@budget.command("override")
def budget_override(
    scope: Scope,
    amount: Annotated[str, typer.Option(help="Budget in US dollars: 500 or 499.99.")],
    reason: Reason,
    until: Until,
    period: Annotated[
        BudgetPeriod, typer.Option(help="Budget to override: of the month or of the day.")
    ] = BudgetPeriod.MONTH,
    actor: Actor = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Override a budget for at most 31 days; then the policy file's budget holds again."""
    try:
        nano_usd = nano_from_usd(amount)
    except MoneyError as error:
        message = f"--amount: {error}"
        raise UserError(message) from None
    if nano_usd < 0:
        message = f"--amount {amount}: a budget is not negative"
        raise UserError(message)
    order = _order(actor, reason, until)
    amounts = {period.value: nano_usd}
    until_text = rfc3339(order.until_ms)
    _carry_out(
        data,
        order,
        lambda policies: manual_control.override_budget(policies, scope, amounts, order),
        f"{scope}: {period.value} budget {usd_display(nano_usd)} until {until_text}",
        json_output=json_output,
    )


@budget.command("revert")
def budget_revert(
    scope: Scope,
    reason: Reason,
    actor: Actor = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Revert a budget override: the policy file's budget holds again."""
    lift = manual_control.revert_budget
    text = f"{scope}: the policy file's budget holds again"
    _lift(data, scope, _order(actor, reason), lift, text, json_output=json_output)
