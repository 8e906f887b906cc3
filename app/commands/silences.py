"""`meterline silence`: silences of alerts, each with author, reason and end."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from meterline.app import tables
from meterline.app.clock import now_ms
from meterline.app.commands.options import DataDir, Json
from meterline.app.commands.output import print_json
from meterline.app.commands.times import duration_ms, short_minute_text, time_ms
from meterline.app.settings import DEFAULT_DATA_DIR, load_settings
from meterline.app.tables import TerminalTable, styled
from meterline.app.wiring import kafka_config
from meterline.control.silences import DURATION_MS_MAX, adding, expiring, new_silence, state_of
from meterline.control.store import publish, read_policies
from meterline.schemas.errors import UserError
from meterline.schemas.matchers import MatcherError, parse_matcher
from meterline.schemas.periods import rfc3339
from meterline.schemas.policy_notify import SILENCE_PREFIX, Silence

_out = Console(highlight=False)
_COLOURS = {"active": "yellow", "pending": "cyan", "expired": "dim"}
silence = typer.Typer(help="Manage silences.", no_args_is_help=True)
Author = Annotated[str, typer.Option(help="Author of the change; default: your user name.")]


@silence.command("add")
def silence_add(
    match: Annotated[
        list[str],
        typer.Argument(help="Matchers that must all hold: department=research severity!=critical."),
    ],
    reason: Annotated[str, typer.Option(help="Reason, for an on-call who misses an alert.")],
    duration: Annotated[str, typer.Option("--for", help="Duration: 30m, 2h, 7d.")] = "",
    until: Annotated[str, typer.Option(help="End, instead of --for: 2026-10-31T12:00:00Z.")] = "",
    start: Annotated[
        str, typer.Option("--from", help="Start: 2026-10-31T12:00:00Z; default: now.")
    ] = "",
    author: Author = "",
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    json_output: Json = False,
) -> None:
    """Create a silence; alerts that still fire when it ends are notified then."""
    at_ms = now_ms()
    starts_ms = time_ms(start) if start else at_ms
    ends_ms = _end(starts_ms, duration, until)
    if ends_ms <= max(starts_ms, at_ms):
        message = "the silence would end before it begins"
        raise UserError(message)
    if ends_ms - starts_ms > DURATION_MS_MAX:
        message = (
            "a silence lasts at most 90 days: for longer, give the alerts a route without channels"
        )
        raise UserError(message)
    try:
        for text in match:
            parse_matcher(text)
    except MatcherError as error:
        raise UserError(str(error)) from None
    if not reason.strip():
        message = "--reason: say why, for an on-call who misses an alert"
        raise UserError(message)
    who = author or getpass.getuser()
    made = new_silence(tuple(match), starts_ms, ends_ms, who, reason)
    config = kafka_config(load_settings(data), "silence")
    changes = adding(made, read_policies(config), at_ms)
    publish(config, changes, actor=who, reason=reason, at_ms=at_ms)
    if json_output:
        print_json(_as_json(made, at_ms))
    else:
        _out.print(f"silence [bold]{made.id}[/] until {rfc3339(ends_ms)}")


@silence.command("list")
def silence_list(
    data: DataDir = DEFAULT_DATA_DIR,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Include expired silences.")] = False,
    json_output: Json = False,
) -> None:
    """List active and pending silences, the next to end first."""
    at_ms = now_ms()
    found = sorted(
        (each for each in _read(data).values() if everything or state_of(each, at_ms) != "expired"),
        key=lambda each: (each.ends_at_ms, each.id),
    )
    if json_output:
        print_json({"silences": [_as_json(each, at_ms) for each in found]})
        return
    if not found:
        _out.print("no silences" if everything else "no silences; --all includes expired ones")
        return
    _out.print(silences_table(found, at_ms))


def silences_table(silences: Sequence[Silence], at_ms: int) -> TerminalTable:
    """Silences with their state now."""
    table = TerminalTable(
        [
            tables.fact("id"),
            tables.fact("state"),
            tables.fact("until (UTC)"),
            tables.name("author"),
            tables.text("matches: reason"),
        ]
    )
    for each in silences:
        state = state_of(each, at_ms)
        table.add(
            each.id,
            styled(state, _COLOURS[state]),
            short_minute_text(each.ends_at_ms),
            each.author,
            f"{' '.join(each.match)}: {each.reason}",
        )
    return table


@silence.command("expire")
def silence_expire(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="Silence id, as `silence list` shows it.")
    ],
    reason: Annotated[str, typer.Option(help="Reason, for the audit log.")] = "",
    author: Author = "",
    data: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Expire a silence now; alerts that it muted and that still fire are notified."""
    found = _read(data).get(SILENCE_PREFIX + name)
    if found is None:
        message = f"there is no silence {name!r}: see `meterline silence list --all`"
        raise UserError(message)
    at_ms = now_ms()
    if state_of(found, at_ms) == "expired":
        _out.print(f"silence {name} has already expired", markup=False, emoji=False)
        return
    publish(
        kafka_config(load_settings(data), "silence"),
        [expiring(found, at_ms)],
        actor=author or getpass.getuser(),
        reason=reason or "expired by an operator",
        at_ms=at_ms,
    )
    _out.print(f"silence {name} is expired", markup=False, emoji=False)


def _end(starts_ms: int, duration: str, until: str) -> int:
    if bool(duration) == bool(until):
        message = "say how long: --for 2h, or --until with a time"
        raise UserError(message)
    return starts_ms + duration_ms(duration) if duration else time_ms(until)


def _read(data: DataDir) -> dict[str, Silence]:
    policies = read_policies(kafka_config(load_settings(data), "silence"))
    return {name: item for name, item in policies.items() if isinstance(item, Silence)}


def _as_json(each: Silence, at_ms: int) -> dict[str, object]:
    return {
        "id": each.id,
        "state": state_of(each, at_ms),
        "match": list(each.match),
        "starts_at": rfc3339(each.starts_at_ms),
        "ends_at": rfc3339(each.ends_at_ms),
        "author": each.author,
        "reason": each.reason,
    }
