"""The policy file's shape: what people may write, field by field."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from meterline.control.policy.finance_document import (
    AccountsEntry,
    ExchangeRateEntry,
    FinanceEntry,
    JournalEntry,
    PushEntry,
    SharedEntry,
)
from meterline.control.policy.notify_document import (
    ChannelEntry,
    InhibitionEntry,
    MaintenanceEntry,
    NotifyEntry,
    RouteEntry,
)
from meterline.control.policy.rules_document import (
    DEFAULT_DEVIATION_ENTRIES,
    BurnRateEntry,
    DeviationEntry,
    Duration,
    NoDataEntry,
    PipelineEntry,
)
from meterline.schemas.policy import BreakerPolicy
from meterline.schemas.policy_entry import Count, Entry, Percent, Text
from meterline.schemas.policy_fields import Usd
from meterline.schemas.throttle import ThrottleMode


class BudgetEntry(Entry):
    """What a scope may spend, in dollars."""

    month_usd: Usd | None = None
    day_usd: Usd | None = None


class LimitsEntry(Entry):
    """Absolute limits of a scope."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    burst_requests: Count | None = None
    hour_spend_usd: Usd | None = None
    day_spend_usd: Usd | None = None
    day_tokens: Count | None = None
    allowed_models: tuple[Text, ...] | None = None


class ScopeEntry(Entry):
    """What every level of the hierarchy may say of itself; nothing of it is inherited.

    The gate asks all scopes of a request and the most restrictive wins, so a child needs to say
    only what is stricter than its parent.
    """

    id: str
    name: Text = ""
    budget: BudgetEntry = BudgetEntry()
    limits: LimitsEntry = LimitsEntry()
    throttle_mode: ThrottleMode = ThrottleMode.REJECT
    fallback_model: Text = ""
    fail_open: bool = True
    disabled: bool = False


class KeyEntry(ScopeEntry):
    """An API key, by the id that usage events carry; never the secret itself."""


class UserEntry(ScopeEntry):
    """A user of the organisation."""


class ProjectEntry(ScopeEntry):
    """A project of a department."""

    keys: tuple[KeyEntry, ...] = ()


class DepartmentEntry(ScopeEntry):
    """A department, its projects, and keys that belong to no project."""

    cost_center: Text = ""
    keys: tuple[KeyEntry, ...] = ()
    projects: tuple[ProjectEntry, ...] = ()


class OrganisationEntry(ScopeEntry):
    """An organisation."""

    users: tuple[UserEntry, ...] = ()
    departments: tuple[DepartmentEntry, ...] = ()


class BreakerEntry(BreakerPolicy, Entry):
    """The breaker's bounds; a field that is not written has the default of BreakerPolicy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    http_status: int = Field(default=402, ge=400, le=599)


class RulesEntry(Entry):
    """The rules that hold for every scope with a budget or a limit."""

    thresholds_percent: tuple[Percent, ...] = (50, 75, 80, 90, 95, 100)
    breaker: BreakerEntry = BreakerEntry()
    renotify: Duration = 0
    """How often a threshold or limit that still holds is told again; 0s for never."""
    deviation: tuple[DeviationEntry, ...] = DEFAULT_DEVIATION_ENTRIES
    burn_rate: tuple[BurnRateEntry, ...] = ()
    no_data: tuple[NoDataEntry, ...] = ()
    pipeline: PipelineEntry = PipelineEntry()


class PolicyDocument(Entry):
    """A whole policy file."""

    version: Literal["1"] | None = None
    """Required; optional here so that a file without it is still checked as a whole."""
    time_zone: str = "UTC"
    organisations: tuple[OrganisationEntry, ...] = ()
    rules: RulesEntry = RulesEntry()
    notify: NotifyEntry = NotifyEntry()
    finance: FinanceEntry = FinanceEntry()


ENTRIES: dict[str, type[BaseModel]] = {
    "": PolicyDocument,
    "organisations": OrganisationEntry,
    "users": UserEntry,
    "departments": DepartmentEntry,
    "projects": ProjectEntry,
    "keys": KeyEntry,
    "budget": BudgetEntry,
    "limits": LimitsEntry,
    "rules": RulesEntry,
    "breaker": BreakerEntry,
    "deviation": DeviationEntry,
    "burn_rate": BurnRateEntry,
    "no_data": NoDataEntry,
    "pipeline": PipelineEntry,
    "notify": NotifyEntry,
    "channels": ChannelEntry,
    "routes": RouteEntry,
    "inhibit": InhibitionEntry,
    "maintenance": MaintenanceEntry,
    "finance": FinanceEntry,
    "rates": ExchangeRateEntry,
    "accounts": AccountsEntry,
    "journals": JournalEntry,
    "shared": SharedEntry,
    "push": PushEntry,
}
"""The field that holds a mapping, or a list of them -> its shape."""
