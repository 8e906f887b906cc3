"""Deviation rules: is this more than the scope's own past lets expect?

    cumulative   today so far             against the previous days up to the same hour (default)
    hourly       this hour                against all hours of the window
    seasonal     log(1 + this hour)       against the same hour of day, with CUSUM for slow leaks
    spike        the last sixty minutes   against the busiest hours at this time of earlier days

Whatever the method, its answer for the current hour is an *amount*: the least spend at which the
rule holds. It is computed once per scope and hour; from then on an observation is compared with
it as an integer, like any budget. That makes a rule as cheap as a threshold, lets it fire in the
middle of an hour (spend of a window only grows, so what holds early holds at the hour's end), and
draws the line between money and statistics:

    money in (int) -> mean, deviation, score (float) -> amount (int), compared with money (int)
A float says where the line is and how far beyond it we are; it is never added to, stored as or
shown as an amount that was spent.

Zero variance: the deviation is never below `floor_percent` of the mean and `floor_nano_usd`.
Cold start: no answer before `warm_up_days` usable days. Only upward: less spend is no alarm.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field
from typing_extensions import override

from meterline.alerting.rules import seasonal
from meterline.alerting.rules.evaluation import (
    Evaluation,
    Subject,
    amount_text,
    hundredths_text,
    percent_of,
)
from meterline.alerting.rules.history import MINUTES_AHEAD_MAX, PastHours, Ring, frozen_hours
from meterline.alerting.rules.kind import ScopeRuleKind, ScopeView
from meterline.alerting.rules.measurement import NANO_USD
from meterline.schemas.alert import Explanation, RuleType, Severity
from meterline.schemas.money import NanoUsd
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy_entry import Duration, Usd
from meterline.schemas.policy_kinds import FieldFault, RuleEntry
from meterline.schemas.policy_rules import DeviationMethod, DeviationRule
from meterline.schemas.rule_ref import RuleRef

# A second level at twice the deviation fires again, with a higher severity: the incident has grown.
ESCALATION_FACTOR = 2
# Fewer known hours than a day's give no idea of a day.
HOURS_MIN = 24
# A spike's sixty minutes begin in the hour before; the hour after is for work that begins early,
# and for clocks that daylight saving moved.
SPIKE_HOURS_BESIDE = 1
SPIKE_MINUTES = 60
# The busiest day is left out, and a deviation needs two others.
SPIKE_DAYS_MIN = 3
_HOUR = 3_600
_DAY = 86_400


def read_stddev(value: Any) -> int:
    """Hundredths of a deviation from a number such as 2.5."""
    try:
        hundredths = Decimal(value) * 100
    except (InvalidOperation, TypeError, ValueError) as error:
        message = f"must be a number such as 2.5; got {value!r}"
        raise ValueError(message) from error
    if not hundredths.is_finite() or not 50 <= hundredths <= 10_000:  # noqa: PLR2004 - as said
        message = f"must be between 0.5 and 100; got {value}"
        raise ValueError(message)
    if hundredths != hundredths.to_integral_value():
        message = f"has more than two decimal places; got {value}"
        raise ValueError(message)
    return int(hundredths)


Hundredths = Annotated[int, BeforeValidator(read_stddev)]


class DeviationEntry(RuleEntry):
    """Its fields in the policy file."""

    method: DeviationMethod = DeviationMethod.CUMULATIVE
    threshold_stddev: Hundredths = 250
    window: Duration = 7 * _DAY
    warm_up: Duration = 4 * _DAY
    floor_percent: Annotated[int, Field(ge=0, le=1000)] = 10
    floor_usd: Usd = NanoUsd(500_000_000)
    min_impact_usd: Usd = NanoUsd(10_000_000_000)
    min_increase_percent: Annotated[int, Field(ge=0, le=10_000)] = 50
    resolve_after: Duration = 3 * _HOUR
    freeze_max: Duration = 48 * _HOUR


class Baseline(NamedTuple):
    """What one rule expects of one scope in the current hour."""

    kind: WindowKind
    """The window whose sum is compared; MINUTE: the sixty minutes that end with the current one."""
    hour: int
    """The hour that this holds for."""
    expected_nano_usd: int
    levels: tuple[tuple[int, int], ...]
    """(threshold in hundredths of a deviation, least amount that reaches it), lowest first."""
    centre: float
    scale: float
    log: bool
    """Whether centre and scale are of log(1 + dollars) instead of nano-USD."""
    samples: int
    """How many past values it was made of."""
    resolve_below: int
    """The amount below which a firing alert may end."""
    quiet: bool = True
    """Whether the hours just before this one were normal: a firing alert ends only after them."""

    def score(self, observed: int) -> int:
        """How far above the expectation, in hundredths of a deviation."""
        value = seasonal.log_usd(observed) if self.log else float(observed)
        return int(100 * (value - self.centre) / self.scale)


class DeviationKind(ScopeRuleKind[DeviationEntry, DeviationRule, Baseline]):
    """Spend beyond what the scope's own past lets expect."""

    name = RuleType.DEVIATION.value
    rule_type = RuleType.DEVIATION
    published_field = "deviations"
    published = DeviationRule
    entry = DeviationEntry
    default = (DeviationEntry(id="day"),)
    freezes_learning = True

    @override
    def check(self, entry: DeviationEntry, /) -> Iterator[FieldFault]:
        """Thresholds, windows and warm-up are in range and fit the method."""
        for name, unit, least, most, text in (
            ("window", _DAY, 2, 7, "whole days, 2d to 7d"),
            ("warm_up", _DAY, 2, 7, "whole days, 2d to 7d"),
            ("resolve_after", _HOUR, 1, 24, "whole hours, 1h to 24h"),
            ("freeze_max", _HOUR, 0, 240, "whole hours, up to 240h"),
        ):
            seconds = getattr(entry, name)
            if seconds % unit or not least <= seconds // unit <= most:
                yield name, f"must be {text}"
        if entry.method is DeviationMethod.SPIKE and entry.warm_up < 3 * _DAY:
            yield "warm_up", "must be at least 3d for a spike, which leaves the busiest day out"
        if entry.warm_up > entry.window:
            yield "warm_up", "is longer than the window: the rule would never speak"

    @override
    def compile(self, entry: DeviationEntry, /) -> DeviationRule:
        """The published rule, in hundredths and nano-dollars."""
        return DeviationRule(
            id=entry.id,
            scope_types=entry.scope_types,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
            method=entry.method,
            threshold_hundredths=entry.threshold_stddev,
            window_days=entry.window // _DAY,
            warm_up_days=entry.warm_up // _DAY,
            floor_percent=entry.floor_percent,
            floor_nano_usd=entry.floor_usd,
            min_impact_nano_usd=entry.min_impact_usd,
            min_increase_percent=entry.min_increase_percent,
            resolve_after_hours=entry.resolve_after // _HOUR,
            freeze_hours_max=entry.freeze_max // _HOUR,
        )

    @override
    def reads_minutes(self, rule: DeviationRule) -> bool:
        """Only a spike: it sums the last 60 minutes."""
        return rule.method is DeviationMethod.SPIKE

    @override
    def prepare(self, rule: DeviationRule, past: PastHours) -> Baseline | None:
        """The baseline of the current hour, without hours of incidents."""
        frozen = frozen_hours(past.incidents, rule.freeze_hours_max)
        return baseline(rule, past._replace(incidents=frozen))

    @override
    def amounts(self, prepared: Baseline) -> Iterator[tuple[WindowKind, int]]:
        """The least spend that reaches each level."""
        for _, least in prepared.levels:
            yield prepared.kind, least

    @override
    def headroom(
        self, rule: DeviationRule, prepared: Baseline | None, view: ScopeView
    ) -> Iterator[int]:
        """Spend of this minute that reaches each level of a spike."""
        if prepared is not None and prepared.kind is WindowKind.MINUTE:
            spent = last_hour(view.history.minutes, view.minute)
            yield from (least - spent for _, least in prepared.levels)

    @override
    def evaluate(
        self, rule: DeviationRule, prepared: Baseline | None, view: ScopeView
    ) -> Evaluation:
        """The highest level that the spend reaches, and the sentence about it."""
        kind = WindowKind.DAY if rule.method is DeviationMethod.CUMULATIVE else WindowKind.HOUR
        observed = (
            last_hour(view.history.minutes, view.minute)
            if rule.method is DeviationMethod.SPIKE
            else view.spent(kind)
        )
        reached: list[int] = []
        limit = 0
        still_active = False
        explanation = None
        summary = ""
        if prepared is not None:
            reached = [threshold for threshold, least in prepared.levels if observed >= least]
            limit = prepared.levels[0][1]
            still_active = observed >= prepared.resolve_below or not prepared.quiet
            if reached:
                # Made only where it is read: every scope is evaluated in every hour.
                explanation = _explanation(rule, prepared, observed)
                summary = _summary(view.subject, rule.method, observed, explanation)
        level = reached[-1] if reached else 0
        escalated = level >= ESCALATION_FACTOR * rule.threshold_hundredths
        return Evaluation(
            rule=RuleRef(self.name, rule.id),
            rule_type=self.rule_type,
            level=level,
            still_active=still_active,
            window=kind,
            period=view.periods[WindowKind.DAY],
            reset_at_ms=view.windows[WindowKind.DAY].end_ms,
            observed=observed,
            limit=limit,
            percent=percent_of(observed, limit),
            unit=NANO_USD,
            severity=Severity.ERROR if escalated else Severity.WARNING,
            summary=summary,
            explanation=explanation,
            for_seconds=rule.for_seconds,
            renotify_seconds=rule.renotify_seconds,
            lower_levels=tuple(reached[:-1]),
        )

    @override
    def advice(self, rule: RuleRef, /) -> str:
        """The owner is asked first; what to do about a loop."""
        return (
            "Spend is far above what is usual: ask the owner of the key that drives it; throttle "
            "it by hand if it is a runaway loop or a stolen key."
        )


def baseline(rule: DeviationRule, past: PastHours) -> Baseline | None:
    """The rule's answer for the current hour; None while the scope's past is too short."""
    match rule.method:
        case DeviationMethod.CUMULATIVE:
            return _cumulative(rule, past)
        case DeviationMethod.HOURLY:
            return _hourly(rule, past)
        case DeviationMethod.SEASONAL:
            return _seasonal(rule, past)
        case DeviationMethod.SPIKE:
            return _spike(rule, past)


def last_hour(minutes: Ring, minute: int) -> int:
    """Spend of the sixty minutes that end with one, and of what clocks ahead of it have said."""
    return minutes.sum(minute + 1 - SPIKE_MINUTES, minute + 1 + MINUTES_AHEAD_MAX)


def _cumulative(rule: DeviationRule, past: PastHours) -> Baseline | None:
    today, *before = past.days
    elapsed = past.hour - today + 1
    history = past.history
    sums = [
        history.hours.sum(start, start + elapsed)
        for start in before[: rule.window_days]
        if start >= _first_whole_day(past)
        and not past.frozen(start, start + elapsed)
        and not past.alive.isdisjoint(range(start, start + 24))
    ]
    if len(sums) < max(rule.warm_up_days, 2):
        return None
    return _from_samples(rule, past, WindowKind.DAY, sums)


def _hourly(rule: DeviationRule, past: PastHours) -> Baseline | None:
    begin = past.hour - 24 * rule.window_days
    if past.history.first_hour == 0 or past.hour - past.history.first_hour < 24 * rule.warm_up_days:
        return None
    samples = past.history.hours.amounts(begin, past.hour)
    unlearnt = set(past.unlearnt(begin, past.hour))
    if unlearnt:
        samples = [amount for hour, amount in enumerate(samples, begin) if hour not in unlearnt]
    if len(samples) < HOURS_MIN:
        return None
    found = _from_samples(rule, past, WindowKind.HOUR, samples)
    recent = past.history.hours.amounts(past.hour - rule.resolve_after_hours, past.hour)
    return found._replace(quiet=max(recent) < found.levels[0][1])


def _seasonal(rule: DeviationRule, past: PastHours) -> Baseline | None:
    found = seasonal.expectation(rule, past)
    if found is None:
        return None
    ladder = tuple(
        (rule.threshold_hundredths * factor, seasonal.least_amount(rule, found, factor))
        for factor in (1, ESCALATION_FACTOR)
    )
    return Baseline(
        kind=WindowKind.HOUR,
        hour=past.hour,
        expected_nano_usd=seasonal.nano_usd(found.centre),
        levels=ladder,
        centre=found.centre,
        scale=found.scale,
        log=True,
        samples=found.samples,
        resolve_below=ladder[0][1],
        quiet=not any(vote >= rule.threshold_hundredths / 100 for vote in found.recent),
    )


def _spike(rule: DeviationRule, past: PastHours) -> Baseline | None:
    """A night's batch is usual at night, and a night's loop is not hidden by working hours.

    The busiest day of the window is left out: one incident does not hide the next, whether it fired
    or not, and what happened on two days may happen again. That takes the place of hours that are
    not learnt from.
    """
    *samples, _ = sorted(_busiest_hours(rule, past)) or [0]
    if len(samples) < max(rule.warm_up_days, SPIKE_DAYS_MIN) - 1:
        return None
    mean, scale = _mean_and_scale(rule, samples)
    usual = max(samples[-1], 0)
    levels = tuple(
        (
            rule.threshold_hundredths * factor,
            max(
                usual + rule.min_impact_nano_usd * factor,
                usual + usual * rule.min_increase_percent * factor // 100,
                math.ceil(mean + scale * rule.threshold_hundredths * factor / 100),
                1,
            ),
        )
        for factor in (1, ESCALATION_FACTOR)
    )
    recent = past.history.hours.amounts(past.hour - rule.resolve_after_hours, past.hour)
    return Baseline(
        WindowKind.MINUTE, past.hour, usual, levels, mean, scale, log=False,
        samples=len(samples), resolve_below=levels[0][1], quiet=max(recent) < levels[0][1],
    )  # fmt: skip


def _busiest_hours(rule: DeviationRule, past: PastHours) -> Iterator[int]:
    """Of each day of the window: its busiest hour at about this time of day.

    An hour without any spend in the whole installation is a quiet one if the day has others (small
    installations sleep at night). A few hours' outage then counts as quiet on one day of seven,
    which hardly moves the line.
    """
    begun = past.history.first_hour or past.hour
    for days in range(1, rule.window_days + 1):
        middle = past.hour - 24 * days
        first, end = middle - SPIKE_HOURS_BESIDE, middle + SPIKE_HOURS_BESIDE + 1
        if end > begun and not past.alive.isdisjoint(range(middle - 12, middle + 12)):
            yield max(past.history.hours.amounts(first, end))


def _first_whole_day(past: PastHours) -> int:
    """The first hour of the first day that the scope was there from its beginning, or nearly.

    The day of the first spend counts: for a scope that begins at nine, as offices do, it is whole.
    """
    first = past.history.first_hour
    return next((start for start in reversed(past.days) if start + 24 > first > 0), past.hour)


def _from_samples(
    rule: DeviationRule, past: PastHours, kind: WindowKind, samples: Sequence[int]
) -> Baseline:
    mean, scale = _mean_and_scale(rule, samples)
    expected = round(mean)
    least = max(
        expected + rule.min_impact_nano_usd,
        expected + expected * rule.min_increase_percent // 100,
        1,
    )
    levels = tuple(
        (
            rule.threshold_hundredths * factor,
            max(least, math.ceil(mean + scale * rule.threshold_hundredths * factor / 100)),
        )
        for factor in (1, ESCALATION_FACTOR)
    )
    return Baseline(
        kind, past.hour, expected, levels, mean, scale, log=False, samples=len(samples),
        resolve_below=levels[0][1],
    )  # fmt: skip


def _mean_and_scale(rule: DeviationRule, samples: Sequence[int]) -> tuple[float, float]:
    """The mean, and the standard deviation with the rule's floors."""
    count = len(samples)
    total = sum(samples)
    mean = total / count
    # Squares of integers are exact, and their difference loses no digits.
    squares = sum(map(operator.mul, samples, samples))
    spread = math.sqrt((count * squares - total * total) / (count * (count - 1)))
    return mean, max(spread, mean * rule.floor_percent / 100, float(rule.floor_nano_usd), 1.0)


_SINCE = {
    DeviationMethod.CUMULATIVE: "so far today",
    DeviationMethod.HOURLY: "in this hour",
    DeviationMethod.SEASONAL: "in this hour",
    DeviationMethod.SPIKE: "in the last 60 minutes",
}


def _explanation(rule: DeviationRule, prepared: Baseline, observed: int) -> Explanation:
    return Explanation(
        method=rule.method.value,
        baseline_nano_usd=prepared.expected_nano_usd,
        score_hundredths=prepared.score(observed),
        excess_nano_usd=observed - prepared.expected_nano_usd,
        samples=prepared.samples,
    )


def _summary(subject: Subject, method: DeviationMethod, observed: int, why: Explanation) -> str:
    return (
        f"{subject.text} has spent {amount_text(observed, NANO_USD)} {_SINCE[method]}, where "
        f"{amount_text(why.baseline_nano_usd, NANO_USD)} is usual: "
        f"{amount_text(why.excess_nano_usd, NANO_USD)} more, "
        f"{hundredths_text(why.score_hundredths)} deviations"
    )
