"""Audit entries: who changed what, when and why, before and after."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

_ID_LENGTH = 32  # 128 bits of SHA-256: no two entries of a lifetime share an id


class AuditEntry(BaseModel):
    """One administrative action; the record key is `object_id`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    at_ms: int
    actor: str
    action: str
    """policy.created, policy.changed, policy.deleted, ..."""
    object_id: str
    reason: str = ""
    before: str = ""
    """JSON of the object before; empty when it was created."""
    after: str = ""
    """JSON of the object after; empty when it was deleted."""


def audit_entry(  # noqa: PLR0913 - one parameter per field of an entry
    action: str,
    object_id: str,
    *,
    at_ms: int,
    actor: str,
    reason: str = "",
    before: str = "",
    after: str = "",
) -> AuditEntry:
    """An entry whose id is a digest of its fields: a retry writes the same entry again."""
    said = (action, object_id, str(at_ms), actor, reason, before, after)
    return AuditEntry(
        id=hashlib.sha256("\x00".join(said).encode()).hexdigest()[:_ID_LENGTH],
        at_ms=at_ms,
        actor=actor,
        action=action,
        object_id=object_id,
        reason=reason,
        before=before,
        after=after,
    )


def encode_audit(entry: AuditEntry) -> bytes:
    """The record value."""
    return entry.model_dump_json().encode()


def decode_audit(value: bytes) -> AuditEntry:
    """Read one record value; `pydantic.ValidationError` if it is not one."""
    return AuditEntry.model_validate_json(value)
