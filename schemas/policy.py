"""Policy objects as published to control.policies: one compacted record per object.

The YAML file that operators write is read by `control.policy.file`, checked, and compiled to these.
Object ids: the scope's spelling for a ScopePolicy, `rules` for RuleSet, `notify` for NotifyPolicy,
`finance` for FinancePolicy, `silence:ID` for a Silence, `throttle:SCOPE` and `override:SCOPE` for what
operators set with a command; those three no file holds.
A record without a value deletes the object.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from meterline.schemas.errors import MeterlineError
from meterline.schemas.finance import FINANCE_ID, FinancePolicy
from meterline.schemas.manual import BudgetOverride, ManualThrottle, manual_id
from meterline.schemas.policy_notify import (
    OPEN_BREAKER_MUTES_BELOW,
    SILENCE_PREFIX,
    AnyChannel,
    Inhibition,
    Maintenance,
    Route,
    Silence,
)
from meterline.schemas.policy_rules import (
    DEFAULT_DEVIATIONS,
    BurnRateRule,
    DeviationRule,
    NoDataRule,
    PipelineRules,
)
from meterline.schemas.throttle import ThrottleMode

RULES_ID = "rules"
NOTIFY_ID = "notify"

Amount = Annotated[int, Field(ge=0)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Budget(_Wire):
    """What a scope may spend per calendar period; None means no budget of that period."""

    month_nano_usd: Amount | None = None
    day_nano_usd: Amount | None = None


class Limits(_Wire):
    """Absolute limits; None means none."""

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    burst_requests: Amount | None = None
    """Requests a token bucket holds; default: one tenth of requests_per_minute, at least 1."""
    hour_spend_nano_usd: Amount | None = None
    day_spend_nano_usd: Amount | None = None
    day_tokens: Amount | None = None
    allowed_models: tuple[str, ...] | None = None


class ScopePolicy(_Wire):
    """What holds for one scope. The most restrictive of a request's scopes wins."""

    kind: Literal["scope"] = "scope"
    scope: str
    parent: str = ""
    """The scope above: a project's department, a key's project, ...; empty for an organisation."""
    name: str = ""
    version: int = 1
    """Rises with every change of this object."""
    budget_version: int = 1
    """Rises with every change of `budget` or of a spend limit: re-arms thresholds."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    throttle_mode: ThrottleMode = ThrottleMode.REJECT
    fallback_model: str = ""
    fail_open: bool = True
    """What the gate does while it has not read the commands to their end."""
    disabled: bool = False
    cost_center: str = ""


class BreakerPolicy(_Wire):
    """The staged breaker's bounds, in whole percent of a budget."""

    enabled: bool = True
    throttle_at_percent: int = Field(default=75, ge=1, le=1000)
    throttle_to_percent: int = Field(default=80, ge=0, le=100)
    half_open_at_percent: int = Field(default=90, ge=1, le=1000)
    half_open_to_percent: int = Field(default=50, ge=0, le=100)
    open_at_percent: int = Field(default=100, ge=1, le=1000)
    hysteresis_points: int = Field(default=5, ge=0, le=50)
    dwell_seconds: int = Field(default=300, ge=0)
    """The least time in a state before a less restrictive one; rises happen at once."""
    grace_seconds: int = Field(default=6 * 3600, ge=0)
    """From a month's start: no trip from month rules unless the state is known complete."""
    soft_lease_seconds: int = Field(default=180, ge=10)
    open_lease_seconds: int = Field(default=900, ge=10)
    http_status: int = Field(default=402)
    """The answer to a request against an exhausted budget."""


class RuleSet(_Wire):
    """The rules that hold for every scope with a budget or limit.

    A kind of rule that has no field here keeps its list beside the fields, under a name of its own
    (`model_extra`): the JSON has one list per kind either way, and a reader that does not know the
    kind passes it on unread.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["rules"] = "rules"
    version: int = 1
    time_zone: str = "UTC"
    """Billing time zone of all calendar windows; fixed once events have been counted."""
    thresholds_percent: tuple[int, ...] = (50, 75, 80, 90, 95, 100)
    breaker: BreakerPolicy = BreakerPolicy()
    renotify_seconds: int = Field(default=0, ge=0)
    """How often a threshold or limit that still holds is notified again; 0 for never."""
    deviations: tuple[DeviationRule, ...] = DEFAULT_DEVIATIONS
    burn_rates: tuple[BurnRateRule, ...] = ()
    no_data: tuple[NoDataRule, ...] = ()
    pipeline: PipelineRules = PipelineRules()


class NotifyPolicy(_Wire):
    """Where alerts go."""

    kind: Literal["notify"] = "notify"
    version: int = 1
    channels: tuple[AnyChannel, ...] = ()
    routes: tuple[Route, ...] = ()
    """None: every alert goes to every channel whose least severity it reaches."""
    inhibit: tuple[Inhibition, ...] = (OPEN_BREAKER_MUTES_BELOW,)
    maintenance: tuple[Maintenance, ...] = ()


PolicyObject = Annotated[
    ScopePolicy
    | RuleSet
    | NotifyPolicy
    | FinancePolicy
    | Silence
    | ManualThrottle
    | BudgetOverride,
    Field(discriminator="kind"),
]
_adapter: TypeAdapter[PolicyObject] = TypeAdapter(PolicyObject)


class PolicyRecordError(MeterlineError, ValueError):
    """A record that is no policy object."""


def object_id(item: PolicyObject) -> str:
    """The record key."""
    match item:
        case ScopePolicy():
            return item.scope
        case RuleSet():
            return RULES_ID
        case NotifyPolicy():
            return NOTIFY_ID
        case FinancePolicy():
            return FINANCE_ID
        case Silence():
            return f"{SILENCE_PREFIX}{item.id}"
        case ManualThrottle() | BudgetOverride():
            return manual_id(item)


def encode_policy(item: PolicyObject) -> bytes:
    """The record value."""
    return item.model_dump_json().encode()


def decode_policy(value: bytes) -> PolicyObject:
    """Read one record value; PolicyRecordError if it is not one."""
    try:
        return _adapter.validate_json(value)
    except ValidationError as error:
        message = f"not a policy object: {error.error_count()} errors"
        raise PolicyRecordError(message) from error
