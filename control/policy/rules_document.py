"""The rules section of the policy file that looks back in time: shape, sense and compilation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from meterline.control.policy.yaml_tree import Path
from meterline.schemas.money import NanoUsd
from meterline.schemas.policy_entry import Entry
from meterline.schemas.policy_fields import Usd
from meterline.schemas.policy_rules import (
    ALL_SCOPES,
    BurnRateRule,
    DeviationMethod,
    DeviationRule,
    NoDataRule,
    PipelineRules,
)
from meterline.schemas.scopes import ScopeType

# Every rule is evaluated for every scope: more than this is a slip, and an hour's work per hour.
RULES_PER_KIND_MAX = 10
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,7})([smhd])", re.ASCII)
_RULE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_DAY = 86_400
_HOUR = 3_600


def read_duration(value: Any) -> int:
    """Seconds of "90s", "5m", "1h" or "7d"; ValueError says what is wrong."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        message = f"must be a duration such as 30s, 5m, 1h or 7d; got {value!r}"
        raise ValueError(message)
    return int(found[1]) * _UNITS[found[2]]


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


Duration = Annotated[int, BeforeValidator(read_duration)]
Hundredths = Annotated[int, BeforeValidator(read_stddev)]


class RuleEntry(Entry):
    """What every rule that looks back may say."""

    id: str
    scope_types: tuple[ScopeType, ...] = ALL_SCOPES
    for_: Annotated[Duration, Field(alias="for")] = 0
    renotify: Duration = 0


class DeviationEntry(RuleEntry):
    """Spend beyond what the scope's own past lets expect."""

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


class BurnRateEntry(RuleEntry):
    """A budget that ends soon at the present pace."""

    long_window: Duration = _HOUR
    short_window: Duration = 300
    exhausts_within: Duration = 4 * _HOUR
    factor: Annotated[int, Field(ge=0, le=10_000)] = 3


class NoDataEntry(RuleEntry):
    """A scope that used to spend and does not any more."""

    after: Duration = 6 * _HOUR


class PipelineEntry(Entry):
    """When the pipeline itself is to be looked at; `off` switches a rule off."""

    unpriced_events: Annotated[int, Field(ge=0)] = 1
    zero_cost_tokens: Annotated[int, Field(ge=0)] = 100_000
    relay_silent: Duration = 900
    lag: Duration = 60
    dead_letters: Annotated[int, Field(ge=0)] = 1
    for_: Annotated[Duration, Field(alias="for")] = 0
    renotify: Duration = 0


DEFAULT_DEVIATION_ENTRIES = (DeviationEntry(id="day"),)


def deviation_rule(entry: DeviationEntry) -> DeviationRule:
    """As published."""
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


def burn_rate_rule(entry: BurnRateEntry) -> BurnRateRule:
    """As published."""
    return BurnRateRule(
        id=entry.id,
        scope_types=entry.scope_types,
        for_seconds=entry.for_,
        renotify_seconds=entry.renotify,
        long_seconds=entry.long_window,
        short_seconds=entry.short_window,
        exhausts_within_seconds=entry.exhausts_within,
        factor=entry.factor,
    )


def no_data_rule(entry: NoDataEntry) -> NoDataRule:
    """As published."""
    return NoDataRule(
        id=entry.id,
        scope_types=entry.scope_types,
        for_seconds=entry.for_,
        renotify_seconds=entry.renotify,
        after_seconds=entry.after,
    )


def pipeline_rules(entry: PipelineEntry) -> PipelineRules:
    """As published; a limit of zero is none."""
    return PipelineRules(
        unpriced_events=entry.unpriced_events or None,
        zero_cost_tokens=entry.zero_cost_tokens or None,
        relay_silent_seconds=entry.relay_silent or None,
        lag_seconds=entry.lag or None,
        dead_letters=entry.dead_letters or None,
        for_seconds=entry.for_,
        renotify_seconds=entry.renotify,
    )


Found = tuple[Path, str]


def check_look_back(
    deviation: tuple[DeviationEntry, ...],
    burn_rate: tuple[BurnRateEntry, ...],
    no_data: tuple[NoDataEntry, ...],
) -> Iterator[Found]:
    """What does not make sense in well-typed rules, by path below `rules`."""
    yield from _check_ids("deviation", deviation)
    yield from _check_ids("burn_rate", burn_rate)
    yield from _check_ids("no_data", no_data)
    for position, entry in enumerate(deviation):
        for name, reason in _check_deviation(entry):
            yield ("deviation", position, name), reason
    for position, each in enumerate(burn_rate):
        for name, reason in _check_burn_rate(each):
            yield ("burn_rate", position, name), reason
    for position, rule in enumerate(no_data):
        if not 60 <= rule.after <= 30 * _DAY:  # noqa: PLR2004 - as the reason says
            yield ("no_data", position, "after"), "must be between 1m and 30d"


def _check_ids(kind: str, entries: tuple[RuleEntry, ...]) -> Iterator[Found]:
    if len(entries) > RULES_PER_KIND_MAX:
        yield (kind,), f"has {len(entries)} rules, at most {RULES_PER_KIND_MAX}"
    times = Counter(entry.id for entry in entries)
    for position, entry in enumerate(entries):
        if not _RULE_ID.fullmatch(entry.id):
            yield (
                (kind, position, "id"),
                "must be lower-case letters, digits, '-' and '_', at most 40",
            )
        elif times[entry.id] > 1:
            yield (kind, position, "id"), f"rule {entry.id!r} is there twice"
        if not entry.scope_types:
            yield (kind, position, "scope_types"), "names no level: the rule would do nothing"


def _check_deviation(entry: DeviationEntry) -> Iterator[tuple[str, str]]:
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


def _check_burn_rate(entry: BurnRateEntry) -> Iterator[tuple[str, str]]:
    for name in ("long_window", "short_window"):
        seconds = getattr(entry, name)
        if seconds % 60 or not 60 <= seconds <= 2 * _HOUR:  # noqa: PLR2004 - as the reason says
            yield name, "must be whole minutes, 1m to 2h"
    if entry.short_window >= entry.long_window:
        yield "short_window", "must be shorter than long_window"
    if not 60 <= entry.exhausts_within <= 31 * _DAY:  # noqa: PLR2004 - as the reason says
        yield "exhausts_within", "must be between 1m and 31d"
