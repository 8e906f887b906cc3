"""Rules about the pipeline itself: can the numbers be believed? Pure; integers only.

    pipeline.unpriced      events without a price, per organisation and hour
    pipeline.zero_cost     tokens of a key that have a price and cost nothing, per hour
    pipeline.relay_silent  seconds without a message from a relay that used to send
    pipeline.lag           seconds that the oldest uncounted message has waited
    pipeline.dead_letters  dead letters, per hour
    pipeline.drift         counts that differ from the stored events, per month
A health check is a number that the worker has read; whether it is too high is decided here. The
subject of an alert is what the number is about: an organisation, a key, a relay, or the whole
pipeline. Drift is found by the scheduled reconciliation, which compares counts and events at one
position of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field
from typing_extensions import override

from meterline.alerting.rules.evaluation import Evaluation, percent_of
from meterline.alerting.rules.kind import AlertKind
from meterline.alerting.rules.measurement import NANO_USD
from meterline.schemas.alert import RuleType, Severity
from meterline.schemas.money import NanoUsd, usd_text
from meterline.schemas.periods import Window, WindowKind
from meterline.schemas.policy_entry import Duration, Entry
from meterline.schemas.policy_kinds import RuleKind
from meterline.schemas.policy_rules import PipelineRules
from meterline.schemas.rule_ref import RuleRef

PIPELINE = "pipeline:meterline"
"""The scope of alerts about the pipeline as a whole."""
RELAY_PREFIX = "pipeline:relay/"
DRIFT_SCOPE = "pipeline"
"""The scope of alerts about drift."""
DRIFT = RuleRef(RuleType.PIPELINE.value, "drift")
# A relay that has been silent for a day was retired, and is not missed any more.
RETIRED_SECONDS = 86_400


class HealthCheckKind(StrEnum):
    """What a health check measures."""

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
    """For the alert's text: the hour, the number of messages."""


class HealthCheckRound(NamedTuple):
    """Health checks read at one time."""

    kinds: frozenset[HealthCheckKind]
    """Those that could be read: of the others nothing is said."""
    checks: tuple[HealthCheck, ...]


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


class PipelineEntry(Entry):
    """Its fields in the policy file; a limit of 0 switches a rule off."""

    unpriced_events: Annotated[int, Field(ge=0)] = 1
    zero_cost_tokens: Annotated[int, Field(ge=0)] = 100_000
    relay_silent: Duration = 900
    lag: Duration = 60
    dead_letters: Annotated[int, Field(ge=0)] = 1
    for_: Annotated[Duration, Field(alias="for")] = 0
    renotify: Duration = 0


class PipelineKind(AlertKind, RuleKind[PipelineEntry, PipelineRules]):
    """The health of the pipeline; a limit of zero is published as none."""

    name = RuleType.PIPELINE.value
    rule_type = RuleType.PIPELINE
    published_field = "pipeline"
    entry = PipelineEntry
    is_list = False

    @override
    def compile(self, entry: PipelineEntry, /) -> PipelineRules:
        """The published rules, in seconds and counts."""
        return PipelineRules(
            unpriced_events=entry.unpriced_events or None,
            zero_cost_tokens=entry.zero_cost_tokens or None,
            relay_silent_seconds=entry.relay_silent or None,
            lag_seconds=entry.lag or None,
            dead_letters=entry.dead_letters or None,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
        )

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """Where the figure of the pipeline is found."""
        return "The pipeline needs a look: begin with `meterline status`."


def evaluate(rules: PipelineRules, check: HealthCheck, hour: Window, period: str) -> Evaluation:
    """What the rules say of one health check.

    Args:
        rules: the limits.
        check: what was read.
        hour: the current hour.
        period: its name.
    """
    limit = limit_of(rules, check.kind)
    holds = limit is not None and check.value >= limit
    return Evaluation(
        rule=RuleRef(RuleType.PIPELINE.value, check.kind.value),
        rule_type=RuleType.PIPELINE,
        level=1 if holds else 0,
        still_active=holds,
        window=WindowKind.HOUR,
        period=period,
        reset_at_ms=hour.end_ms,
        observed=check.value,
        limit=limit or 0,
        percent=percent_of(check.value, limit or 0),
        unit=_UNITS[check.kind],
        severity=_SEVERITIES.get(check.kind, Severity.WARNING),
        summary=_summary(check),
        for_seconds=rules.for_seconds,
        renotify_seconds=rules.renotify_seconds,
    )


def evaluate_drift(period: str, totals: int, drift_nano_usd: NanoUsd) -> Evaluation:
    """What a reconciliation says of a month.

    Args:
        period: the month.
        totals: how many of its totals differ from their events.
        drift_nano_usd: by how much in all.
    """
    return Evaluation(
        rule=DRIFT,
        rule_type=RuleType.PIPELINE,
        level=1 if totals else 0,
        still_active=totals > 0,
        # Drift that was repaired may come again in the same month.
        recurs=True,
        window=WindowKind.MONTH,
        period=period,
        reset_at_ms=0,
        observed=drift_nano_usd,
        limit=0,
        percent=100,
        unit=NANO_USD,
        severity=Severity.ERROR,
        summary=(
            f"{totals:,} totals of {period} differ from their events by "
            f"USD {usd_text(drift_nano_usd)} in all: see `meterline reconcile`"
        ),
    )


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


def relay_checks(last_ms: Mapping[str, int], now_ms: int) -> list[HealthCheck]:
    """How long each relay has been silent.

    Args:
        last_ms: when the last batch of each lane came, by the lane's name `relay/boot/n`.
        now_ms: the current time.
    """
    relays: dict[str, int] = {}
    for lane, at_ms in last_ms.items():
        relay, _, rest = lane.partition("/")
        # A lane of another form is no relay's that comes back: a malformed message may name any.
        if "/" in rest:
            relays[relay] = max(at_ms, relays.get(relay, 0))
    silent = ((relay, (now_ms - at_ms) // 1000) for relay, at_ms in sorted(relays.items()))
    return [
        HealthCheck(HealthCheckKind.RELAY_SILENT, f"{RELAY_PREFIX}{relay}", seconds)
        for relay, seconds in silent
        if 0 < seconds < RETIRED_SECONDS
    ]


def _summary(check: HealthCheck) -> str:
    text = _TEXTS[check.kind].format(
        subject=check.subject, value=f"{check.value:,}", detail=check.detail
    )
    return " ".join(text.split()).replace(" :", ":")
