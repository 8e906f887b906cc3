"""Rules about the pipeline itself: can the numbers be believed? Pure; integers only.

    pipeline.unpriced      events without a price, per organisation and hour
    pipeline.zero_cost     tokens of a key that have a price and cost nothing, per hour
    pipeline.relay_silent  seconds without a message from a relay that used to send
    pipeline.lag           seconds that the oldest uncounted message has waited
    pipeline.dead_letters  dead letters, per hour
Whether counts and stored events differ (pipeline.drift) is told by the reconciliation of the reports
worker, which compares both at one position of the log.
A probe is a number that the shell has read; whether it is too high is decided here. The subject of
an alert is what the number is about: an organisation, a key, a relay, or the whole pipeline.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.alert import Severity
from meterline.schemas.policy_rules import PipelineRules

PIPELINE = "pipeline:meterline"
"""The scope of alerts about the pipeline as a whole."""
RELAY_PREFIX = "pipeline:relay/"


class HealthCheckKind(StrEnum):
    """What a probe measures."""

    UNPRICED = "unpriced"
    ZERO_COST = "zero_cost"
    RELAY_SILENT = "relay_silent"
    LAG = "lag"
    DEAD_LETTERS = "dead_letters"


class HealthCheck(NamedTuple):
    """One number that was read."""

    kind: HealthCheckKind
    subject: str
    """The scope that it is about."""
    value: int
    detail: str = ""
    """More for people: the hour, the partition."""


_UNITS = {
    HealthCheckKind.UNPRICED: "events",
    HealthCheckKind.ZERO_COST: "tokens",
    HealthCheckKind.RELAY_SILENT: "seconds",
    HealthCheckKind.LAG: "seconds",
    HealthCheckKind.DEAD_LETTERS: "messages",
}
_SEVERITIES = {
    HealthCheckKind.LAG: Severity.ERROR,
    HealthCheckKind.RELAY_SILENT: Severity.WARNING,
}
_TEXTS = {
    HealthCheckKind.UNPRICED: "{subject}: {value} events have no price {detail}: add one to a catalogue "
    "and re-rate",
    HealthCheckKind.ZERO_COST: "{subject}: {value} tokens cost nothing {detail}: is the price right?",
    HealthCheckKind.RELAY_SILENT: "{subject}: no message for {value} s {detail}",
    HealthCheckKind.LAG: "{subject}: usage waits for {value} s to be counted {detail}: budgets are "
    "enforced late",
    HealthCheckKind.DEAD_LETTERS: "{subject}: {value} messages could not be counted {detail}: see the "
    "dead letters",
}


def unit_of(kind: HealthCheckKind) -> str:
    """The unit of a probe's value."""
    return _UNITS[kind]


def severity_of(kind: HealthCheckKind) -> Severity:
    """How loud an alert of the kind is."""
    return _SEVERITIES.get(kind, Severity.WARNING)


def limit_of(rules: PipelineRules, kind: HealthCheckKind) -> int | None:
    """The value from which the rule holds; None if it is switched off."""
    limits: dict[HealthCheckKind, int | None] = {
        HealthCheckKind.UNPRICED: rules.unpriced_events,
        HealthCheckKind.ZERO_COST: rules.zero_cost_tokens,
        HealthCheckKind.RELAY_SILENT: rules.relay_silent_seconds,
        HealthCheckKind.LAG: rules.lag_seconds,
        HealthCheckKind.DEAD_LETTERS: rules.dead_letters,
    }
    return limits[kind]


def text_of(probe: HealthCheck) -> str:
    """The alert's sentence."""
    text = _TEXTS[probe.kind].format(
        subject=probe.subject, value=f"{probe.value:,}", detail=probe.detail
    )
    return " ".join(text.split()).replace(" :", ":")
