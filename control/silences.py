"""Silences: policy objects that operators make and end, each change in the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from meterline.control.policy.plan import ChangeAction, PolicyChange
from meterline.schemas.policy import PolicyObject, object_id
from meterline.schemas.policy_notify import Silence

# A longer silence is a route without a receiver, which belongs into the policy file.
DURATION_MS_MAX = 90 * 86_400_000
# Ended silences are listed for a month; the audit log keeps every change.
FORGET_AFTER_MS = 30 * 86_400_000


def new_silence(
    match: tuple[str, ...], starts_at_ms: int, ends_at_ms: int, author: str, reason: str
) -> Silence:
    """A silence with an id of its own; equal arguments give an equal one."""
    text = "\x00".join((*match, str(starts_at_ms), str(ends_at_ms), author, reason))
    return Silence(
        id=hashlib.sha256(text.encode()).hexdigest()[:8],
        match=match,
        starts_at_ms=starts_at_ms,
        ends_at_ms=ends_at_ms,
        author=author,
        reason=reason,
    )


def adding(
    silence: Silence, current: Mapping[str, PolicyObject], now_ms: int
) -> list[PolicyChange]:
    """The changes that publish a silence: it is created, and those long over are deleted."""
    changes = [PolicyChange(ChangeAction.CREATED, object_id(silence), None, silence, ())]
    changes += [
        PolicyChange(ChangeAction.DELETED, name, item, None, ())
        for name, item in sorted(current.items())
        if isinstance(item, Silence) and item.ends_at_ms < now_ms - FORGET_AFTER_MS
    ]
    return changes


def expiring(silence: Silence, now_ms: int) -> PolicyChange:
    """The change that ends a silence now."""
    after = silence.model_copy(
        update={
            "version": silence.version + 1,
            "starts_at_ms": min(silence.starts_at_ms, now_ms),
            "ends_at_ms": now_ms,
        }
    )
    return PolicyChange(ChangeAction.CHANGED, object_id(silence), silence, after, ())


def state_of(silence: Silence, now_ms: int) -> str:
    """Pending, active or expired, as Alertmanager says."""
    if now_ms >= silence.ends_at_ms:
        return "expired"
    return "active" if now_ms >= silence.starts_at_ms else "pending"
