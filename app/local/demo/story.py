"""The story: traffic, thresholds, the breaker, the gate's refusal, recovery, and the proof.

Each act waits for facts, not for time; a bound turns a fact that never comes into an error that
names it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meterline.app.local.demo.feed import Fact, Feed, RelayReport
from meterline.backends.kafka.config import Record
from meterline.schemas.alert import Alert, AlertStatus, decode_alert
from meterline.schemas.errors import UserError
from meterline.schemas.money import usd_display
from meterline.schemas.scopes import parse_scope
from meterline.schemas.throttle import (
    BreakerState,
    ThrottleAck,
    ThrottleCommand,
    decode_ack,
    decode_command,
)
from meterline.schemas.topics import Topic

PrintLine = Callable[[str, str, str], None]
"""Prints one line: (seconds since the traffic began, headline with its colour, text)."""

_STATE_COLOURS = {
    BreakerState.CLOSED: "green",
    BreakerState.THROTTLED: "yellow",
    BreakerState.HALF_OPEN: "dark_orange",
    BreakerState.OPEN: "red",
}
_SEVERITY_COLOURS = {"info": "cyan", "warning": "yellow", "error": "dark_orange", "critical": "red"}


@dataclass(slots=True)
class Seen:
    """What has been seen so far."""

    ready: set[str] = field(default_factory=set)
    refusing: dict[str, set[str]] = field(default_factory=dict)
    """Department to the relays whose gate refuses it now."""
    refusal: dict[str, Any] = field(default_factory=dict)
    """The first full refusal, as the relay would answer it."""
    resolved: int = 0
    states: dict[str, BreakerState] = field(default_factory=dict)
    issued: dict[tuple[str, int, int], ThrottleCommand] = field(default_factory=dict)
    admitted: dict[str, Counter[str]] = field(default_factory=dict)
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: int = 0

    def totals(self) -> tuple[Counter[str], Counter[str]]:
        """Admitted and refused requests per department, over all relays."""
        return sum(self.admitted.values(), Counter()), sum(self.refused.values(), Counter())


class Story:
    """Turns facts into lines, and waits for the fact that ends an act."""

    def __init__(self, feed: Feed, print_line: PrintLine) -> None:
        """Begin with the clock of the story at zero."""
        self.seen = Seen()
        self._feed = feed
        self._print = print_line
        self._began = time.monotonic()

    def restart_clock(self) -> None:
        """Zero is when the traffic begins."""
        self._began = time.monotonic()

    def line(self, colour: str, headline: str, text: str) -> None:
        """Print one line of the story."""
        elapsed = time.monotonic() - self._began
        self._print(f"{elapsed:6.1f}s", f"[{colour}]{headline:<9}[/]", text)

    def until(self, happened: Callable[[Seen], bool], what: str, bound_seconds: float) -> None:
        """Print what arrives until something has happened.

        Raises:
            UserError: it did not happen within the bound.
        """
        deadline = time.monotonic() + bound_seconds
        while not happened(self.seen):
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"the demonstration waited {bound_seconds:.0f} s in vain: {what}"
                raise UserError(message)
            fact = self._feed.next(min(left, 1.0))
            if fact is not None:
                self._take(fact)

    def during(self, seconds: float) -> None:
        """Print what arrives for some time, so that the audience sees the traffic."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            fact = self._feed.next(left)
            if fact is not None:
                self._take(fact)

    def _take(self, fact: Fact) -> None:
        if isinstance(fact, RelayReport):
            self._report(fact)
        else:
            self._record(fact)

    def _record(self, record: Record) -> None:
        if record.value is None:
            return
        if record.topic == Topic.ALERTS:
            self._alert(decode_alert(record.value))
        elif record.topic == Topic.THROTTLE_COMMANDS:
            self._command(decode_command(record.value))
        else:
            self._ack(decode_ack(record.value))

    def _alert(self, alert: Alert) -> None:
        if alert.status is AlertStatus.RESOLVED:
            self.seen.resolved += 1
            self.line("green", "RESOLVED", alert.summary)
            return
        self.line(_SEVERITY_COLOURS[alert.severity.value], "ALERT", alert.summary)

    def _command(self, command: ThrottleCommand) -> None:
        self.seen.issued[command.scope, command.epoch, command.seq] = command
        before = self.seen.states.get(command.scope, BreakerState.CLOSED)
        if command.state is before:
            return  # a renewed lease
        self.seen.states[command.scope] = command.state
        self.line(
            _STATE_COLOURS[command.state],
            "BREAKER",
            f"{_short(command.scope)}: {before.value} → {command.state.value} ({command.reason})",
        )

    def _ack(self, ack: ThrottleAck) -> None:
        command = self.seen.issued.get((ack.scope, ack.epoch, ack.seq))
        if command is None or command.state is BreakerState.CLOSED:
            return
        delay = ack.at_ms - command.issued_at_ms
        self.line("dim", "ack", f"{ack.relay} applied it {delay} ms after it was decided")

    def _report(self, report: RelayReport) -> None:
        fields = report.fields
        match report.kind:
            case "ready":
                self.seen.ready.add(fields["relay"])
            case "tally":
                self.seen.admitted[fields["relay"]] = Counter(fields["admitted"])
                self.seen.refused[fields["relay"]] = Counter(fields["refused"])
            case "turned":
                self._turned(fields)
            case "done":
                self.seen.done[fields["relay"]] = fields
            case "lost":
                self.seen.lost += 1
            case _:
                pass

    def _turned(self, fields: dict[str, Any]) -> None:
        department, relay = fields["department"], fields["relay"]
        refusing = self.seen.refusing.setdefault(department, set())
        if fields["admission"] == "admit":
            refusing.discard(relay)
            self.line("green", "GATE", f"{relay} admits {department} again")
            return
        refusing.add(relay)
        self.seen.refusal = self.seen.refusal or fields
        retry = fields["headers"].get("Retry-After", "")
        again = f", Retry-After {retry} s" if retry else ""
        self.line(
            "red",
            "GATE",
            f"{relay} refuses {department}'s next request: HTTP {fields['status']}{again}",
        )


def departments_line(admitted: Counter[str], refused: Counter[str], department: str) -> str:
    """One department against all the others, in requests."""
    others_admitted = sum(admitted.values()) - admitted[department]
    others_refused = sum(refused.values()) - refused[department]
    asked = admitted[department] + refused[department]
    return (
        f"{department}: {admitted[department]} of {asked} requests admitted; all others: "
        f"{others_admitted:,} of {others_admitted + others_refused:,}"
    )


def spend_line(events: int, cost_nano_usd: int) -> str:
    """Events and money as an operator reads them."""
    return f"{events:,} events, {usd_display(cost_nano_usd, 4)}"


def _short(scope: str) -> str:
    parsed = parse_scope(scope)
    return f"{parsed.type.value} {parsed.identifier or parsed.organisation}"
