"""The policy file's shape, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from meterline.control.policy.finance_document import FinanceEntry
from meterline.control.policy.notify_document import NotifyEntry, UnknownChannelEntry
from meterline.control.policy.yaml_tree import Path
from meterline.schemas.policy import BreakerPolicy
from meterline.schemas.policy_entry import Count, Duration, Entry, Percent, Text, Usd
from meterline.schemas.policy_kinds import ChannelEntry, PolicyKinds, RuleKind
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


# As many as there are registries in a process: the product's, and those that tests make.
@lru_cache(maxsize=8)
def document_type(kinds: PolicyKinds) -> type[PolicyDocument]:
    """PolicyDocument with the channels and rules of these kinds."""
    rule_fields: dict[str, Any] = {name: _rule_field(kind) for name, kind in kinds.rules.items()}
    rules = create_model("RulesEntry", __base__=RulesEntry, **rule_fields)
    channel = Annotated[ChannelEntry, BeforeValidator(partial(_read_channel, kinds))]
    notify = create_model("NotifyEntry", __base__=NotifyEntry, channels=(tuple[channel, ...], ()))
    return create_model(
        "PolicyDocument", __base__=PolicyDocument, rules=(rules, rules()), notify=(notify, notify())
    )


def _rule_field(kind: RuleKind[Any, Any]) -> tuple[Any, Any]:
    """The type of a rule kind's field, and its default."""
    if kind.is_list:
        return tuple[kind.entry, ...], kind.default  # type: ignore[name-defined] # made here
    return kind.entry, kind.entry()


@lru_cache(maxsize=8)
def unknown_channel_type(kinds: PolicyKinds) -> type[UnknownChannelEntry]:
    """UnknownChannelEntry with the fields of all kinds of channels.

    A field that two kinds read in different ways takes any value.
    """
    fields: dict[str, Any] = {}
    for kind in kinds.channels.values():
        for name, info in kind.entry.model_fields.items():
            if name in ChannelEntry.model_fields:
                continue
            read_as: Any = info.annotation
            for constraint in info.metadata:
                read_as = Annotated[read_as, constraint]
            if name in fields and fields[name][0] != read_as:
                read_as = Any
            fields[name] = (read_as, Field(default=None, alias=info.alias))
    return create_model("UnknownChannelEntry", __base__=UnknownChannelEntry, **fields)


def _read_channel(kinds: PolicyKinds, value: Any) -> Any:
    """An entry of the kind that `type` names; the name itself is checked in `notify_checks`."""
    if not isinstance(value, Mapping):
        return value
    kind = kinds.channel_kind(value.get("type"))
    entry = unknown_channel_type(kinds) if kind is None else kind.entry
    return entry.model_validate(value)


def entry_at(entry: type[BaseModel], path: Path) -> type[BaseModel]:
    """The shape of the mapping at a path within a mapping of the shape `entry`."""
    for step in path:
        fields = {info.alias or name: info for name, info in entry.model_fields.items()}
        if step in fields:
            entry = _entry_in(fields[str(step)].annotation) or entry
    return entry


def _entry_in(annotation: Any) -> type[BaseModel] | None:
    """The entry that a field holds, also in a list or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_entry_in, get_args(annotation))), None)
