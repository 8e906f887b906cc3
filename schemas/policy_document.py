"""The policy file's shape: what people may write, field by field.

Every scalar of the file arrives as its text ("0.1" is never a float), so that each field reads
its own: dollars exactly, to the nano-dollar; whole numbers as integers.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.money import MoneyError, NanoUsd, nano_from_usd, usd_text
from schemas.policy import BreakerPolicy
from schemas.policy_entry import Count, Entry, Percent, Text
from schemas.policy_notify_document import (
    ChannelEntry,
    InhibitionEntry,
    MaintenanceEntry,
    NotifyEntry,
    RouteEntry,
)
from schemas.throttle import ThrottleMode

# A trillion dollars: more is a slip of the keyboard, and all sums stay printable.
AMOUNT_USD_MAX = 10**12


def read_usd(value: Any) -> NanoUsd:
    """Dollars as written to nano-dollars, exactly; ValueError says what is wrong."""
    if not isinstance(value, str):
        message = "must be an amount of dollars, such as 1000 or 0.25"
        raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueError
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        message = f"must be an amount of dollars, such as 1000 or 0.25; got {value!r}"
        raise ValueError(message) from error
    if amount.is_finite() and amount < 0:
        message = f"must not be negative; got {value}"
        raise ValueError(message)
    # Before scaling: the exponent of "1e999999999" would make an integer that fills the memory.
    if not amount.is_finite() or amount > AMOUNT_USD_MAX:
        message = f"must be at most {AMOUNT_USD_MAX:,} dollars; got {value}"
        raise ValueError(message)
    try:
        return nano_from_usd(value)
    except MoneyError as error:
        message = f"is finer than a nano-dollar (nine decimal places); got {value}"
        raise ValueError(message) from error


Usd = Annotated[NanoUsd, BeforeValidator(read_usd)]


def plain_usd(nano_usd: NanoUsd) -> str:
    """Dollars as a person would write them: "1000", "0.25"."""
    return usd_text(nano_usd).rstrip("0").rstrip(".")


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


class PolicyDocument(Entry):
    """A whole policy file."""

    version: Literal["1"] | None = None
    """Required; optional here so that a file without it is still checked as a whole."""
    time_zone: str = "UTC"
    organisations: tuple[OrganisationEntry, ...] = ()
    rules: RulesEntry = RulesEntry()
    notify: NotifyEntry = NotifyEntry()


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
    "channels": ChannelEntry,
    "routes": RouteEntry,
    "inhibit": InhibitionEntry,
    "maintenance": MaintenanceEntry,
}
"""The field that holds a mapping, or a list of them -> its shape."""
