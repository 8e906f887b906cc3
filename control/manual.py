"""Manual overrides: what an operator orders, as policy objects, with an audit entry for each.

The alerts worker turns an order into a throttle command or another budget, and relays obey that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meterline.backends.kafka.config import KafkaConfig
from meterline.control.store import read_policies, write
from meterline.schemas.audit import AuditEntry, audit_entry
from meterline.schemas.errors import UserError
from meterline.schemas.manual import (
    OVERRIDE_MS_MAX,
    OVERRIDE_PREFIX,
    THROTTLE_MS_MAX,
    THROTTLE_PREFIX,
    BudgetOverride,
    ManualObject,
    ManualThrottle,
)
from meterline.schemas.periods import HOUR_MS, rfc3339
from meterline.schemas.policy import PolicyObject, ScopePolicy, object_id
from meterline.schemas.scopes import parse_scope
from meterline.schemas.throttle import ThrottleMode


@dataclass(frozen=True, slots=True)
class ManualOrder:
    """The author of a manual override, the reason, and from when until when (UTC ms)."""

    author: str
    reason: str
    at_ms: int
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class ManualChange:
    """One object to publish, and what it replaces."""

    action: str
    before: ManualObject | None
    after: ManualObject


def set_throttle(
    policies: Mapping[str, PolicyObject],
    scope: str,
    admit_percent: int,
    mode: ThrottleMode,
    order: ManualOrder,
) -> ManualChange:
    """Restrict a scope; UserError if the order cannot be carried out."""
    _check(scope, order, THROTTLE_MS_MAX)
    after = ManualThrottle(scope=scope, admit_percent=admit_percent, mode=mode, **_signed(order))
    return _given(policies, "throttle.set", after)


def release_throttle(
    policies: Mapping[str, PolicyObject], scope: str, order: ManualOrder
) -> ManualChange:
    """End a manual throttle now; UserError if none is in force."""
    return _ended(policies, "throttle.released", THROTTLE_PREFIX, scope, order)


def override_budget(
    policies: Mapping[str, PolicyObject],
    scope: str,
    amounts: Mapping[str, int],
    order: ManualOrder,
) -> ManualChange:
    """Override a budget until the order's end.

    Args:
        policies: the published objects by id.
        scope: the budget's scope; its policy must have a budget of each period named.
        amounts: nano-USD by period, "month" and "day".
        order: author, reason and end.
    """
    _check(scope, order, OVERRIDE_MS_MAX)
    policy = policies.get(scope)
    for period in amounts:
        known = policy.budget if isinstance(policy, ScopePolicy) else None
        if known is None or getattr(known, f"{period}_nano_usd") is None:
            message = f"{scope} has no {period} budget to override: set one in the policy file"
            raise UserError(message)
    month, day = amounts.get("month"), amounts.get("day")
    after = BudgetOverride(scope=scope, month_nano_usd=month, day_nano_usd=day, **_signed(order))
    return _given(policies, "budget.overridden", after)


def revert_budget(
    policies: Mapping[str, PolicyObject], scope: str, order: ManualOrder
) -> ManualChange:
    """End an override now; UserError if none is in force."""
    return _ended(policies, "budget.reverted", OVERRIDE_PREFIX, scope, order)


def publish_manual_change(config: KafkaConfig, change: ManualChange, order: ManualOrder) -> None:
    """Make a change and its audit entry durable; KafkaClientError: call again with the same."""
    write(config, [(object_id(change.after), change.after)], [change_entry(change, order)])


def change_entry(change: ManualChange, order: ManualOrder) -> AuditEntry:
    """The audit entry of a change; equal arguments give an equal entry."""
    return audit_entry(
        change.action,
        object_id(change.after),
        at_ms=order.at_ms,
        actor=order.author,
        reason=order.reason,
        before=change.before.model_dump_json() if change.before is not None else "",
        after=change.after.model_dump_json(),
    )


def read(config: KafkaConfig) -> dict[str, PolicyObject]:
    """The published objects by id, as of now."""
    return read_policies(config)


def _check(scope: str, order: ManualOrder, ms_max: int) -> None:
    parse_scope(scope)
    if not order.reason.strip():
        message = (
            "--reason must not be empty: it is kept in the audit log and shown in every refusal"
        )
        raise UserError(message)
    if order.until_ms <= order.at_ms:
        message = f"--until {rfc3339(order.until_ms)} is not in the future"
        raise UserError(message)
    if order.until_ms - order.at_ms > ms_max:
        message = (
            f"--until is more than {ms_max // HOUR_MS} hours ahead: "
            "what should hold for longer belongs into the policy file"
        )
        raise UserError(message)


def _signed(order: ManualOrder) -> dict[str, Any]:
    """The fields that every manual object has."""
    return {
        "since_ms": order.at_ms,
        "until_ms": order.until_ms,
        "author": order.author,
        "reason": order.reason,
    }


def _given(policies: Mapping[str, PolicyObject], action: str, after: ManualObject) -> ManualChange:
    before = _known(policies, object_id(after))
    version = before.version + 1 if before is not None else 1
    return ManualChange(action, before, after.model_copy(update={"version": version}))


def _ended(
    policies: Mapping[str, PolicyObject], action: str, prefix: str, scope: str, order: ManualOrder
) -> ManualChange:
    parse_scope(scope)
    before = _known(policies, prefix + scope)
    if before is None or not before.holds(order.at_ms):
        message = f"{scope} has no manual {prefix[:-1]} in force: see `meterline explain {scope}`"
        raise UserError(message)
    # Its version stays: begin and end of one order differ by their time.
    return ManualChange(action, before, before.model_copy(update={"until_ms": order.at_ms}))


def _known(policies: Mapping[str, PolicyObject], name: str) -> ManualObject | None:
    found = policies.get(name)
    return found if isinstance(found, ManualThrottle | BudgetOverride) else None
