"""The kinds of rules as the policy file writes them: fields, checks and compilation. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from typing_extensions import override

from meterline.schemas.money import NanoUsd
from meterline.schemas.policy_entry import Duration, Entry, Usd
from meterline.schemas.policy_kinds import FieldFault, RuleEntry, RuleKind
from meterline.schemas.policy_rules import (
    BurnRateRule,
    DeviationMethod,
    DeviationRule,
    NoDataRule,
    PipelineRules,
)

_DAY = 86_400
_HOUR = 3_600


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


class DeviationKind(RuleKind[DeviationEntry, DeviationRule]):
    """Spend beyond what the scope's own past lets expect."""

    name = "deviation"
    published_field = "deviations"
    entry = DeviationEntry
    default = (DeviationEntry(id="day"),)

    @override
    def check(self, entry: DeviationEntry, /) -> Iterator[FieldFault]:
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


class BurnRateKind(RuleKind[BurnRateEntry, BurnRateRule]):
    """A budget that ends soon at the current rate."""

    name = "burn_rate"
    published_field = "burn_rates"
    entry = BurnRateEntry

    @override
    def check(self, entry: BurnRateEntry, /) -> Iterator[FieldFault]:
        for name in ("long_window", "short_window"):
            seconds = getattr(entry, name)
            if seconds % 60 or not 60 <= seconds <= 2 * _HOUR:  # noqa: PLR2004 - as the reason says
                yield name, "must be whole minutes, 1m to 2h"
        if entry.short_window >= entry.long_window:
            yield "short_window", "must be shorter than long_window"
        if not 60 <= entry.exhausts_within <= 31 * _DAY:  # noqa: PLR2004 - as the reason says
            yield "exhausts_within", "must be between 1m and 31d"

    @override
    def compile(self, entry: BurnRateEntry, /) -> BurnRateRule:
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


class NoDataKind(RuleKind[NoDataEntry, NoDataRule]):
    """A scope that used to spend and does not any more."""

    name = "no_data"
    published_field = "no_data"
    entry = NoDataEntry

    @override
    def check(self, entry: NoDataEntry, /) -> Iterator[FieldFault]:
        if not 60 <= entry.after <= 30 * _DAY:  # noqa: PLR2004 - as the reason says
            yield "after", "must be between 1m and 30d"

    @override
    def compile(self, entry: NoDataEntry, /) -> NoDataRule:
        return NoDataRule(
            id=entry.id,
            scope_types=entry.scope_types,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
            after_seconds=entry.after,
        )


class PipelineKind(RuleKind[PipelineEntry, PipelineRules]):
    """The health of the pipeline itself; a limit of zero is published as none."""

    name = "pipeline"
    published_field = "pipeline"
    entry = PipelineEntry
    is_list = False

    @override
    def compile(self, entry: PipelineEntry, /) -> PipelineRules:
        return PipelineRules(
            unpriced_events=entry.unpriced_events or None,
            zero_cost_tokens=entry.zero_cost_tokens or None,
            relay_silent_seconds=entry.relay_silent or None,
            lag_seconds=entry.lag or None,
            dead_letters=entry.dead_letters or None,
            for_seconds=entry.for_,
            renotify_seconds=entry.renotify,
        )
