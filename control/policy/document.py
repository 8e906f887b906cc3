"""The policy file's shape, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from meterline.control.policy.finance_document import (
    AccountsEntry,
    ExchangeRateEntry,
    FinanceEntry,
    JournalEntry,
    PushEntry,
    SharedEntry,
)
from meterline.control.policy.notify_document import (
    InhibitionEntry,
    MaintenanceEntry,
    NotifyEntry,
    RouteEntry,
)
from meterline.schemas.policy import BreakerPolicy
from meterline.schemas.policy_entry import Count, Duration, Entry, Percent, Text, Usd
from meterline.schemas.policy_kinds import (
    DEFAULT_CHANNEL_TYPE,
    ChannelEntry,
    ChannelKind,
    PolicyKinds,
    RuleKind,
)
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
    """The rules that hold for every scope with a budget or a limit.

    `document_type` adds a field for each kind of rule.
    """

    thresholds_percent: tuple[Percent, ...] = (50, 75, 80, 90, 95, 100)
    breaker: BreakerEntry = BreakerEntry()
    renotify: Duration = 0
    """How often a threshold or limit that still holds is notified again; 0s for never."""


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
    "notify": NotifyEntry,
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
"""The field that holds a mapping, or a list of them -> its shape; kinds have their own."""
UNKNOWN_KIND = "unknown_kind"
"""Pydantic error type of an entry whose `type` names no kind."""


# As many as there are registries in a process: the product's, and those that tests make.
@lru_cache(maxsize=8)
def document_type(kinds: PolicyKinds) -> type[PolicyDocument]:
    """PolicyDocument with the channels and rules of these kinds."""
    rule_fields: dict[str, Any] = {name: _rule_field(kind) for name, kind in kinds.rules.items()}
    rules = create_model("RulesEntry", __base__=RulesEntry, **rule_fields)
    channel = Annotated[ChannelEntry, BeforeValidator(partial(_read_channel, kinds.channels))]
    notify = create_model("NotifyEntry", __base__=NotifyEntry, channels=(tuple[channel, ...], ()))
    return create_model(
        "PolicyDocument", __base__=PolicyDocument, rules=(rules, rules()), notify=(notify, notify())
    )


def _rule_field(kind: RuleKind[Any, Any]) -> tuple[Any, Any]:
    """The type of a rule kind's field, and its default."""
    if kind.is_list:
        return tuple[kind.entry, ...], kind.default  # type: ignore[name-defined] # made here
    return kind.entry, kind.entry()


def _read_channel(kinds: Mapping[str, ChannelKind[Any, Any]], value: Any) -> Any:
    """An entry of the kind that `type` names."""
    if not isinstance(value, Mapping):
        return value
    name = value.get("type")
    kind = kinds.get(DEFAULT_CHANNEL_TYPE if name is None else str(name))
    if kind is not None:
        return kind.entry.model_validate(value)
    *most, last = map(repr, kinds)
    expected = f"{', '.join(most)} or {last}" if most else last
    fault = PydanticCustomError(UNKNOWN_KIND, "must be {expected}", {"expected": expected})
    raise ValidationError.from_exception_data(
        ChannelEntry.__name__, [InitErrorDetails(type=fault, loc=("type",), input=name)]
    )
