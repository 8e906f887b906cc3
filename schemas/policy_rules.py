"""Rules of history and of the pipeline, as published with the rule set; amounts in nano-USD, times in s.

Their names in alerts: `deviation.ID`, `burn_rate.ID`, `no_data.ID`, `pipeline.KIND`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from meterline.schemas.scopes import ScopeType

Seconds = Annotated[int, Field(ge=0)]
ALL_SCOPES = tuple(ScopeType)


class DeviationMethod(StrEnum):
    """What a deviation rule compares."""

    CUMULATIVE = "cumulative"
    """Today so far with the same part of earlier days."""
    HOURLY = "hourly"
    """This hour with all hours of the window."""
    SEASONAL = "seasonal"
    """This hour with the same hour of earlier days, on a logarithmic scale, with CUSUM."""
    SPIKE = "spike"
    """The last sixty minutes with the busiest hours at this time of earlier days."""


class ScopeRule(BaseModel):
    """What every rule of a list has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    scope_types: tuple[ScopeType, ...] = ALL_SCOPES
    """The levels of the hierarchy that the rule applies to."""
    for_seconds: Seconds = 0
    """How long it must hold before its alert fires."""
    renotify_seconds: Seconds = 0
    """How often a firing alert is notified again; 0 for never."""


class DeviationRule(ScopeRule):
    """Spend beyond what the scope's own past lets expect."""

    method: DeviationMethod = DeviationMethod.CUMULATIVE
    threshold_hundredths: int = Field(default=250, ge=50, le=10_000)
    """Deviations above the expectation, in hundredths."""
    window_days: int = Field(default=7, ge=2, le=7)
    warm_up_days: int = Field(default=4, ge=2, le=7)
    """Days of history below which the rule says nothing."""
    floor_percent: int = Field(default=10, ge=0, le=1000)
    """The deviation counts as at least this share of the mean."""
    floor_nano_usd: int = Field(default=500_000_000, ge=0)
    """The deviation counts as at least this amount: what zero variance is replaced by."""
    min_impact_nano_usd: int = Field(default=10_000_000_000, ge=0)
    """Less than this above the expectation does not fire."""
    min_increase_percent: int = Field(default=50, ge=0, le=10_000)
    """Nor less than this share of the expectation."""
    resolve_after_hours: int = Field(default=3, ge=1, le=24)
    """Normal hours before an hourly or spike alert ends."""
    freeze_hours_max: int = Field(default=48, ge=0, le=240)
    """Hours of an incident that are not learnt from; what lasts longer is the new normal."""


class BurnRateRule(ScopeRule):
    """A budget that ends soon at the current rate."""

    long_seconds: int = Field(default=3_600, ge=60, le=7_200)
    short_seconds: int = Field(default=300, ge=60, le=7_200)
    exhausts_within_seconds: int = Field(default=14_400, ge=60, le=31 * 86_400)
    factor: int = Field(default=3, ge=0, le=10_000)
    """The pace must also be at least this many times the even one (budget / period)."""


class NoDataRule(ScopeRule):
    """A scope that used to spend and does not any more."""

    after_seconds: int = Field(default=21_600, ge=60, le=30 * 86_400)


class PipelineRules(BaseModel):
    """When the pipeline itself needs attention; a limit of None switches a rule off."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    unpriced_events: int | None = Field(default=1, ge=1)
    """Events without a price, per organisation and hour."""
    zero_cost_tokens: int | None = Field(default=100_000, ge=1)
    """Tokens of one key in one hour that cost nothing although they have a price."""
    relay_silent_seconds: int | None = Field(default=900, ge=10)
    """Without a message from a relay that used to send."""
    lag_seconds: int | None = Field(default=60, ge=1)
    """Age of the oldest message that streams have not counted."""
    dead_letters: int | None = Field(default=1, ge=1)
    """Dead letters per hour."""
    for_seconds: Seconds = 0
    renotify_seconds: Seconds = 0


DEFAULT_DEVIATIONS = (DeviationRule(id="day"),)
