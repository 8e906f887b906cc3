"""Manual control: what a person orders, as policy objects, with an audit entry for each.

    1. the object      the alerts worker turns it into a throttle command, relays obey that
    2. the audit log   never claims what did not happen: written when 1 is durable
A retry with the same arguments writes the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from app.failures import UserError
from app.policy_store import PUBLISH_SECONDS_MAX, read_policies
from backends.kafka import KafkaConfig, Producer
from schemas.audit import AuditEntry, encode_audit
from schemas.manual import (
    OVERRIDE_MS_MAX,
    OVERRIDE_PREFIX,
    THROTTLE_MS_MAX,
    THROTTLE_PREFIX,
    BudgetOverride,
    ManualObject,
    ManualThrottle,
)
from schemas.periods import HOUR_MS, rfc3339
from schemas.policy import PolicyObject, ScopePolicy, encode_policy, object_id
from schemas.scopes import parse_scope
from schemas.throttle import ThrottleMode
from schemas.topics import Topic

# A policy topic holds one record per object: a minute reads millions.
READ_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Order:
    """Who orders, why, when, and until when (UTC ms)."""

    author: str
    reason: str
    at_ms: int
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One object to publish, and what it replaces."""

    action: str
    before: ManualObject | None
    after: ManualObject


def set_throttle(
    policies: Mapping[str, PolicyObject],
    scope: str,
    admit_percent: int,
    mode: ThrottleMode,
    order: Order,
) -> Change:
    """Restrict a scope; UserError if the order makes no sense."""
    _check(scope, order, THROTTLE_MS_MAX)
    before = _throttle(policies, scope)
    after = ManualThrottle(
        version=before.version + 1 if before else 1,
        scope=scope,
        admit_percent=admit_percent,
        mode=mode,
        since_ms=order.at_ms,
        until_ms=order.until_ms,
        author=order.author,
        reason=order.reason,
    )
    return Change("throttle.set", before, after)


def release_throttle(policies: Mapping[str, PolicyObject], scope: str, order: Order) -> Change:
    """End a manual throttle now; UserError if none is in force."""
    parse_scope(scope)
    before = _throttle(policies, scope)
    if before is None or not before.holds(order.at_ms):
        message = f"{scope} has no manual throttle in force: `meterline explain {scope}` says more"
        raise UserError(message)
    after = before.model_copy(update={"version": before.version + 1, "until_ms": order.at_ms})
    return Change("throttle.released", before, after)


def override_budget(
    policies: Mapping[str, PolicyObject],
    scope: str,
    amounts: Mapping[str, int],
    order: Order,
) -> Change:
    """Put another budget in place until the order's end.

    Args:
        policies: what is published.
        scope: whose budget; its policy must have one of each period named.
        amounts: nano-USD by period, "month" and "day".
        order: by whom, why, until when.
    """
    _check(scope, order, OVERRIDE_MS_MAX)
    policy = policies.get(scope)
    for period in amounts:
        known = policy.budget if isinstance(policy, ScopePolicy) else None
        if known is None or getattr(known, f"{period}_nano_usd") is None:
            message = f"{scope} has no {period} budget to override: set one in the policy file"
            raise UserError(message)
    before = _override(policies, scope)
    after = BudgetOverride(
        version=before.version + 1 if before else 1,
        scope=scope,
        month_nano_usd=amounts.get("month"),
        day_nano_usd=amounts.get("day"),
        since_ms=order.at_ms,
        until_ms=order.until_ms,
        author=order.author,
        reason=order.reason,
    )
    return Change("budget.overridden", before, after)


def revert_budget(policies: Mapping[str, PolicyObject], scope: str, order: Order) -> Change:
    """End an override now; UserError if none is in force."""
    parse_scope(scope)
    before = _override(policies, scope)
    if before is None or not before.holds(order.at_ms):
        message = f"{scope} has no budget override in force"
        raise UserError(message)
    # Its version stays: begin and end of one override are told apart by time.
    return Change("budget.reverted", before, before.model_copy(update={"until_ms": order.at_ms}))


def publish(config: KafkaConfig, change: Change, order: Order) -> None:
    """Make a change and its audit entry durable; KafkaDoorError: call again with the same."""
    name = object_id(change.after)
    producer = Producer(config)
    try:
        # 1. The order itself: durable before anything says that it was given.
        producer.send(Topic.POLICIES, name.encode(), encode_policy(change.after))
        producer.flush(PUBLISH_SECONDS_MAX)
        # 2. The audit log.
        entry = audit_entry(change, order)
        producer.send(Topic.AUDIT_LOG, entry.object_id.encode(), encode_audit(entry))
        producer.flush(PUBLISH_SECONDS_MAX)
    finally:
        producer.close()


def audit_entry(change: Change, order: Order) -> AuditEntry:
    """Who, what, when, why, before and after; equal arguments give an equal entry."""
    before = change.before.model_dump_json() if change.before is not None else ""
    after = change.after.model_dump_json()
    parts = (change.action, str(order.at_ms), order.author, order.reason, before, after)
    return AuditEntry(
        id=hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32],
        at_ms=order.at_ms,
        actor=order.author,
        action=change.action,
        object_id=object_id(change.after),
        reason=order.reason,
        before=before,
        after=after,
    )


def read(config: KafkaConfig) -> dict[str, PolicyObject]:
    """All that is published now."""
    return read_policies(config, READ_SECONDS_MAX)


def _check(scope: str, order: Order, ms_max: int) -> None:
    parse_scope(scope)
    if not order.reason.strip():
        message = "--reason must say why: it stands in the audit log and in every answer"
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


def _throttle(policies: Mapping[str, PolicyObject], scope: str) -> ManualThrottle | None:
    found = policies.get(THROTTLE_PREFIX + scope)
    return found if isinstance(found, ManualThrottle) else None


def _override(policies: Mapping[str, PolicyObject], scope: str) -> BudgetOverride | None:
    found = policies.get(OVERRIDE_PREFIX + scope)
    return found if isinstance(found, BudgetOverride) else None
