"""The seasonal method: the logarithm of an hour's dollars against the same hour of earlier days.

Spend grows and swings by factors, so log(1 + dollars) is what is normally distributed; the "1 +"
makes cents count for nothing. The expectation of an hour comes from the same hour of day, two to
eight days ago: the last two days are what is being judged.

    residual   (log(1 + spent) - expected) / scale       of the last 48 hours and the current one
    holds when the current residual reaches
        the threshold, and one of the two hours before did as well     (a step, a runaway loop)
        twice the threshold, with five times the impact                (at once)
        what CUSUM lacks: sum of (residual - 1) above 10                (a slow leak)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from meterline.alerting.rules.history import PastHours
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.policy_rules import DeviationRule

JUDGED_HOURS = 48
SLACK = 1.0
"""Residual that CUSUM forgives in every hour."""
ALARM = 10.0
"""Accumulated residual at which CUSUM speaks."""
# An ordinary hour moves CUSUM by this much at most, so that one wild hour is not called a leak.
RESIDUAL_MAX = 3.0
SCALE_MIN = 0.15
AT_ONCE = 2
IMPACT_AT_ONCE = 5
# A dollar amount above e^60 is beyond every sum; exp would overflow at 710.
_LOG_MAX = 60.0


class Expectation(NamedTuple):
    """What the current hour should be, in log(1 + dollars), and what the hours before were."""

    centre: float
    scale: float
    samples: int
    recent: tuple[float, ...]
    """Residuals of the two hours before, oldest first."""
    cusum: float
    """Accumulated before the current hour."""
    carried_nano_usd: int
    """What the hour before spent above its expectation. A loop that begins at half past has half
    of its first hour there: without it every full hour would give it a fresh start."""


def log_usd(amount_nano_usd: int) -> float:
    """log(1 + dollars); corrections below zero count as nothing."""
    return math.log1p(max(amount_nano_usd, 0) / NANO_PER_USD)


def logs_usd(amounts: Sequence[int]) -> list[float]:
    """`log_usd` of many: hundreds per scope on every hour."""
    log1p = math.log1p
    return [log1p(amount / NANO_PER_USD) if amount > 0 else 0.0 for amount in amounts]


def nano_usd(value: float) -> int:
    """The amount whose `log_usd` is `value`, as a line to compare with."""
    return math.ceil(math.expm1(max(0.0, min(value, _LOG_MAX))) * NANO_PER_USD)


def expectation(rule: DeviationRule, past: PastHours) -> Expectation | None:
    """What is expected of the current hour; None while the scope's past is too short."""
    begin = past.hour - JUDGED_HOURS
    first = begin + 1 - 24 * rule.window_days
    # The two judged days are left out of what is learnt, but for their first hour: the current hour
    # of day, which so comes last in every 24.
    logs = logs_usd(past.history.hours.amounts(first, past.hour))
    by_hour, apart = _hours_of_day(past, first, logs[: 1 - JUDGED_HOURS])
    if len(apart[0]) < max(rule.warm_up_days, 2):
        return None
    residuals = [log - usual for log, usual in zip(logs[-JUDGED_HOURS:], by_hour * 2, strict=True)]
    before = past.history.hours.get(past.hour - 1)
    unknown = past.unknown(begin, past.hour)
    for hour in unknown:
        residuals[hour - begin] = 0.0
    # The mean absolute deviation of a normal distribution is 0.8 of its standard deviation.
    pooled = 1.25 * sum(map(sum, apart)) / max(sum(map(len, apart)), 1)
    # An hour that is wilder than the others (working hours of a user who works in bursts) is
    # measured by itself; a calm one is not, because seven samples are too few to call it calm.
    own = 1.25 * sum(apart[0]) / len(apart[0])
    scale = max(pooled, own, SCALE_MIN)
    scaled = [residual / scale for residual in residuals]
    return Expectation(
        by_hour[0],
        scale,
        len(apart[0]),
        tuple(scaled[-2:]),
        _cusum(scaled),
        max(0, before - nano_usd(by_hour[-1])) if past.hour - 1 not in unknown else 0,
    )


def _hours_of_day(
    past: PastHours, first: int, logs: Sequence[float]
) -> tuple[list[float], list[list[float]]]:
    """By hour of day, the current one first: the mean, and how far from it each day was."""
    learnt: list[float | None] = [*logs]
    for hour in past.unlearnt(first, first + len(logs)):
        learnt[hour - first] = None
    means: list[float] = []
    apart: list[list[float]] = []
    for hour_of_day in range(24):
        known = [log for log in learnt[(hour_of_day - 1) % 24 :: 24] if log is not None]
        mean = sum(known) / len(known) if known else 0.0
        means.append(mean)
        apart.append([abs(log - mean) for log in known])
    return means, apart


def least_amount(rule: DeviationRule, found: Expectation, factor: int) -> int:
    """The least spend of the current hour at which the rule holds, at a multiple of its threshold."""
    threshold = rule.threshold_hundredths * factor / 100
    at_once = _line(rule, found, threshold * AT_ONCE, IMPACT_AT_ONCE)
    ways = [max(at_once - found.carried_nano_usd, nano_usd(found.centre) + 1)]
    if any(vote >= threshold for vote in found.recent):
        ways.append(_line(rule, found, threshold, 1))
    headroom = ALARM * factor + SLACK - found.cusum
    if headroom <= RESIDUAL_MAX:
        ways.append(_line(rule, found, max(headroom, SLACK), 1))
    return min(ways)


def _line(rule: DeviationRule, found: Expectation, residual: float, impact: int) -> int:
    expected = nano_usd(found.centre)
    return max(
        nano_usd(found.centre + residual * found.scale),
        expected + rule.min_impact_nano_usd * impact,
        expected + expected * rule.min_increase_percent // 100,
    )


def _cusum(residuals: list[float]) -> float:
    total = 0.0
    for residual in residuals:
        total = max(0.0, total + min(residual, RESIDUAL_MAX) - SLACK)
    return total
