"""From a policy document to published objects, and the difference that applying it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ValidationError
from typing_extensions import override

from meterline.control.policy.checks import PlacedEntry, placed_entries
from meterline.control.policy.document import DepartmentEntry, PolicyDocument, RulesEntry
from meterline.control.policy.finance_document import FinanceEntry
from meterline.control.policy.notify_plan import compile_notify
from meterline.schemas.audit import AuditEntry, audit_entry
from meterline.schemas.finance import FinancePolicy
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.policy import (
    BreakerPolicy,
    Budget,
    Limits,
    NotifyPolicy,
    PolicyObject,
    RuleSet,
    ScopePolicy,
    object_id,
)
from meterline.schemas.policy_entry import plain_usd
from meterline.schemas.policy_kinds import PolicyKinds, RuleKind
from meterline.schemas.policy_notify import Silence
from meterline.schemas.scopes import ScopeType

_NOT_IN_FILES = (Silence, ManualThrottle, BudgetOverride)
# Fields that count versions are no part of what is compared.
_VERSIONS = frozenset({"version", "budget_version"})
# A change of these re-arms thresholds and absolute limits: all that alerting compares spend with.
_SPEND_LIMITS = ("hour_spend_nano_usd", "day_spend_nano_usd", "day_tokens")
_NANO_SUFFIX = "_nano_usd"


class ChangeAction(StrEnum):
    """What happens to an object."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


_MARKS = {ChangeAction.CREATED: "+", ChangeAction.CHANGED: "~", ChangeAction.DELETED: "-"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field, before and after, as a person would write them; "none" where it is not set."""

    field: str
    before: str
    after: str

    @override
    def __str__(self) -> str:
        """`budget.month_usd: 50 -> 60`."""
        return f"{self.field}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What applying does to one object; `after` has the version to publish."""

    action: ChangeAction
    object_id: str
    before: PolicyObject | None
    after: PolicyObject | None
    fields: tuple[FieldChange, ...]
    """Empty for a deletion; for a creation what differs from an object that says nothing."""

    @override
    def __str__(self) -> str:
        """`~ department:acme/research  budget.month_usd: 50 -> 60`."""
        if self.action is ChangeAction.CREATED:
            details = ", ".join(f"{each.field}: {each.after}" for each in self.fields)
        else:
            details = ", ".join(str(each) for each in self.fields)
        return f"{_MARKS[self.action]} {self.object_id}  {details}".rstrip()


def compile_policy(document: PolicyDocument, kinds: PolicyKinds) -> dict[str, PolicyObject]:
    """The objects of a checked document by their id, each with version 1.

    Args:
        document: as parsed with the same kinds.
        kinds: what channels and rules there are.
    """
    objects: list[PolicyObject] = [
        RuleSet(
            time_zone=document.time_zone,
            thresholds_percent=document.rules.thresholds_percent,
            breaker=BreakerPolicy.model_validate(document.rules.breaker.model_dump()),
            renotify_seconds=document.rules.renotify,
            **{
                kind.published_field: _compile_rules(document.rules, kind)
                for kind in kinds.rules.values()
            },
        ),
        compile_notify(document.notify, kinds),
    ]
    if document.finance != FinanceEntry():
        objects.append(FinancePolicy.model_validate(document.finance.model_dump()))
    objects += [_compile_scope(placed) for placed in placed_entries(document)]
    return {object_id(item): item for item in objects}


def _compile_rules(rules: RulesEntry, kind: RuleKind[Any, Any]) -> Any:
    """What a kind publishes: a list of rules, or one object."""
    written = getattr(rules, kind.name)
    return tuple(map(kind.compile, written)) if kind.is_list else kind.compile(written)


def _compile_scope(placed: PlacedEntry) -> ScopePolicy:
    entry = placed.entry
    limits = entry.limits
    return ScopePolicy(
        scope=str(placed.scope),
        parent=str(placed.parents[0].scope) if placed.parents else "",
        name=entry.name,
        budget=Budget(
            month_nano_usd=entry.budget.month_usd,
            day_nano_usd=entry.budget.day_usd,
        ),
        limits=Limits(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            burst_requests=limits.burst_requests,
            hour_spend_nano_usd=limits.hour_spend_usd,
            day_spend_nano_usd=limits.day_spend_usd,
            day_tokens=limits.day_tokens,
            allowed_models=limits.allowed_models,
        ),
        throttle_mode=entry.throttle_mode,
        fallback_model=entry.fallback_model,
        fail_open=entry.fail_open,
        disabled=entry.disabled,
        cost_center=entry.cost_center if isinstance(entry, DepartmentEntry) else "",
    )


def plan(
    current: Mapping[str, PolicyObject], desired: Mapping[str, PolicyObject]
) -> tuple[PolicyChange, ...]:
    """What must be published to turn `current` into `desired`.

    Versions are assigned here: those of `desired` do not matter. Parents come before children,
    and deletions last, children before parents; equal arguments give equal plans.
    """
    kept = sorted(desired, key=_rank)
    # Silences, manual throttles and overrides are not the file's: commands make and end them.
    gone = sorted(
        (
            name
            for name in current.keys() - desired.keys()
            if not isinstance(current[name], _NOT_IN_FILES)
        ),
        key=_rank,
        reverse=True,
    )
    changes = [_change(name, current.get(name), desired[name]) for name in kept]
    changes += [PolicyChange(ChangeAction.DELETED, name, current[name], None, ()) for name in gone]
    return tuple(change for change in changes if change is not None)


def _change(name: str, before: PolicyObject | None, desired: PolicyObject) -> PolicyChange | None:
    if before is None or before.kind != desired.kind:
        # A stranger under this id is replaced; its version must still rise.
        version = before.version + 1 if before is not None else 1
        after = desired.model_copy(update={"version": version})
        action = ChangeAction.CREATED if before is None else ChangeAction.CHANGED
        return PolicyChange(action, name, before, after, _fields(type(desired), None, after))
    fields = _fields(type(desired), _as_read_now(before, desired), desired)
    if not fields:
        return None
    update = {"version": before.version + 1}
    if isinstance(before, ScopePolicy) and isinstance(desired, ScopePolicy):
        update["budget_version"] = before.budget_version + _rearms(before, desired)
    after = desired.model_copy(update=update)
    return PolicyChange(ChangeAction.CHANGED, name, before, after, fields)


def _as_read_now(before: PolicyObject, desired: PolicyObject) -> PolicyObject:
    """A published object with its channels and rules as their kinds read them now.

    A record that was published before its kind had some field lacks it and means its default:
    that is no change. What was compiled has the models of its kinds, what was read need not.
    """
    if isinstance(before, NotifyPolicy) and isinstance(desired, NotifyPolicy):
        channels = {(each.id, each.type): each for each in desired.channels}
        read = (_read_as(channels.get((each.id, each.type)), each) for each in before.channels)
        return before.model_copy(update={"channels": tuple(read)})
    if isinstance(before, RuleSet) and isinstance(desired, RuleSet):
        old, new = before.model_extra or {}, desired.model_extra or {}
        return before.model_copy(
            update={name: _rules_as(new[name], old[name]) for name in old.keys() & new.keys()}
        )
    return before


def _rules_as(wanted: Any, written: Any) -> Any:
    """The rules of one kind that has no field in RuleSet: a list, or one mapping."""
    if not isinstance(wanted, Sequence) or not isinstance(written, Sequence):
        return _read_as(wanted, written)
    rules = {getattr(rule, "id", None): rule for rule in wanted}
    return [
        _read_as(rules.get(each.get("id")) if isinstance(each, Mapping) else None, each)
        for each in written
    ]


def _read_as(wanted: Any, record: Any) -> Any:
    """A record by the model of what shall replace it; as it is where there is none."""
    if not isinstance(wanted, BaseModel):
        return record
    # Unset fields stay out: the kind's model may have another default than the base model.
    written = record.model_dump(exclude_unset=True) if isinstance(record, BaseModel) else record
    try:
        return type(wanted).model_validate(written)
    except ValidationError:  # no record of this version: what the file says replaces it
        return record


def _rearms(before: ScopePolicy, after: ScopePolicy) -> bool:
    return before.budget != after.budget or any(
        getattr(before.limits, name) != getattr(after.limits, name) for name in _SPEND_LIMITS
    )


def _rank(name: str) -> tuple[int, str]:
    kind, _, _ = name.partition(":")
    ranks = {kind.value: position for position, kind in enumerate(ScopeType)}
    # `rules`, `notify` and `finance` come first: they hold for every scope that follows.
    return ranks.get(kind, -1), name


def _fields(
    model: type[PolicyObject], before: PolicyObject | None, after: PolicyObject
) -> tuple[FieldChange, ...]:
    """Fields that differ; without `before`, those that differ from an object that says nothing."""
    if before is None:
        silent = {"scope": ""} if model is ScopePolicy else {}
        before = model.model_validate(silent)
    old, new = dict(_flat(before)), dict(_flat(after))
    return tuple(
        FieldChange(_field_name(name), _show(name, old.get(name)), _show(name, new.get(name)))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name) and name != "scope"
    )


def _flat(item: PolicyObject) -> Iterable[tuple[str, Any]]:
    for name, value in item.model_dump(mode="json").items():
        if name in _VERSIONS:
            continue
        if isinstance(item, RuleSet | NotifyPolicy) and _has_ids(name, value):
            for part in value:
                yield f"{name}[{part['id']}]", {**part}
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", content) for inner, content in value.items())
        else:
            yield name, value


def _has_ids(name: str, value: Any) -> bool:
    """Whether a field lists mappings with an id, each of which is compared by itself.

    In a RuleSet those are the kinds of rules, also one without a field there.
    """
    return (
        isinstance(value, list)
        and name != "thresholds_percent"
        and all(isinstance(part, dict) and "id" in part for part in value)
    )


def _field_name(name: str) -> str:
    return name.removesuffix(_NANO_SUFFIX) + "_usd" if name.endswith(_NANO_SUFFIX) else name


def _show(name: str, value: Any) -> str:
    if value is None or value == "" or name.endswith("url"):
        return "set" if value else "none"  # a URL may carry a token
    if name.endswith(_NANO_SUFFIX):
        return plain_usd(value)
    if isinstance(value, list):
        return f"[{', '.join(str(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        # A channel's URL may carry a token: that it changed is seen, what it is is not shown.
        return ", ".join(
            f"{key} {text}"
            for key, text in value.items()
            if text and key != "id" and not key.endswith("url")
        )
    return str(value)


def audit_entries(
    changes: Iterable[PolicyChange], *, actor: str, reason: str, at_ms: int
) -> tuple[AuditEntry, ...]:
    """One audit entry per change; equal arguments give equal entries, ids included.

    Args:
        changes: what is published.
        actor: who does it.
        reason: why, in their words.
        at_ms: when, UTC ms; a retry of the same application passes the same time.
    """
    return tuple(_audit_entry(change, actor, reason, at_ms) for change in changes)


def _audit_entry(change: PolicyChange, actor: str, reason: str, at_ms: int) -> AuditEntry:
    before = change.before.model_dump_json() if change.before is not None else ""
    after = change.after.model_dump_json() if change.after is not None else ""
    return audit_entry(
        f"policy.{change.action.value}",
        change.object_id,
        at_ms=at_ms,
        actor=actor,
        reason=reason,
        before=before,
        after=after,
    )
