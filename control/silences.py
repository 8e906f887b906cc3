"""Silences: policy objects that people make and end by hand, each change in the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from meterline.control.policy.plan import ChangeAction, PolicyChange
from meterline.schemas.policy import PolicyObject, object_id
from meterline.schemas.policy_notify import Silence

# Longer is no silence but a route to nobody, which stands in the policy file for all to see.
DURATION_MS_MAX = 90 * 86_400_000
# Ended silences are listed for a while; the audit log keeps them for ever.
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
    """What publishing a silence changes: it comes, and those long over go."""
    changes = [PolicyChange(ChangeAction.CREATED, object_id(silence), None, silence, ())]
    changes += [
        PolicyChange(ChangeAction.DELETED, name, item, None, ())
        for name, item in sorted(current.items())
        if isinstance(item, Silence) and item.ends_at_ms < now_ms - FORGET_AFTER_MS
    ]
    return changes


def expiring(silence: Silence, now_ms: int) -> PolicyChange:
    """What ending a silence now changes."""
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
