"""Alerts: one (scope, rule, threshold, period, budget version), firing or resolved."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from meterline.schemas.errors import MeterlineError


class Severity(StrEnum):
    """How loudly, quietest first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class AlertStatus(StrEnum):
    """The state of an alert. Only firing and resolved ones are notified."""

    INACTIVE = "inactive"
    """It was pending, and the condition ended before its `for`."""
    PENDING = "pending"
    """The condition holds, but not yet for its `for`."""
    FIRING = "firing"
    RESOLVED = "resolved"


class RuleType(StrEnum):
    """The family of the rule."""

    THRESHOLD = "threshold"
    LIMIT = "limit"
    BREAKER = "breaker"
    DEVIATION = "deviation"
    BURN_RATE = "burn_rate"
    NO_DATA = "no_data"
    PIPELINE = "pipeline"


NOTIFIABLE = frozenset({AlertStatus.FIRING, AlertStatus.RESOLVED})
"""The states that receivers are notified of."""


class TopContributor(BaseModel):
    """A key and model that spent more than they usually do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    model: str
    spent_nano_usd: int
    """In the window that the alert is about."""
    usual_nano_usd: int
    """In the same part of the days before, on average."""

    @property
    def excess_nano_usd(self) -> int:
        """How much more than usual."""
        return self.spent_nano_usd - self.usual_nano_usd


class Explanation(BaseModel):
    """Why a history-based rule fired."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str
    baseline_nano_usd: int = 0
    """What was expected: a line drawn by statistics, not an amount that anybody spent."""
    score_hundredths: int = 0
    """Deviations above the expectation, in hundredths."""
    excess_nano_usd: int = 0
    """Observed less baseline."""
    samples: int = 0
    """Past values that the expectation was made of."""
    seconds_left: int = -1
    """Until the budget ends at this pace; -1 where that means nothing."""
    drivers: tuple[TopContributor, ...] = ()
    """Who drove it, the greatest excess first; empty where it is not known."""
    drivers_note: str = ""
    """Why there are no drivers."""


class Alert(BaseModel):
    """One state change of one alert; the record key is `dedup_key`.

    Money is integer nano-USD here and a decimal string in what receivers get.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    """Made of the dedup key, the status and the number of the reminder, so that a replay gives the
    same id, and a reminder or resolution another."""
    dedup_key: str
    """rule/threshold/scope/period/budget version."""
    rule_id: str
    rule_type: RuleType
    status: AlertStatus
    severity: Severity
    scope: str
    window: str
    period: str
    threshold: int
    """In `unit` for limits; percent of the budget for thresholds; hundredths of a deviation for
    deviation rules; 1 where a rule has a single level."""
    unit: str
    observed: int
    """nano_usd or tokens spent in the window."""
    limit: int
    """The budget or limit, nano_usd or tokens."""
    percent: int
    budget_version: int = 0
    also_crossed: tuple[int, ...] = ()
    """Lower thresholds crossed by the same observation; they are not notified separately."""
    summary: str
    starts_at_ms: int
    ends_at_ms: int = 0
    reset_at_ms: int = 0
    told_at_ms: int = 0
    """When it was last notified: at the start, or by the latest reminder."""
    reminder: int = 0
    """Number of reminders sent while it fires."""
    explanation: Explanation | None = None
    commands: tuple[str, ...] = ()
    """scope@epoch.seq of the throttle commands published for the same cause."""


class AlertError(MeterlineError, ValueError):
    """A record that is no alert."""


def encode_alert(alert: Alert) -> bytes:
    """The record value."""
    return alert.model_dump_json().encode()


def decode_alert(value: bytes) -> Alert:
    """Decode one record value.

    Raises:
        AlertError: not an alert.
    """
    try:
        return Alert.model_validate_json(value)
    except ValidationError as error:
        message = f"not an alert: {error.error_count()} errors"
        raise AlertError(message) from error
