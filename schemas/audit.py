"""Audit entries: who changed what, when and why, before and after."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

_NAMED = ("action", "object_id", "at_ms", "actor", "reason", "before", "after")
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


def named(entry: AuditEntry) -> AuditEntry:
    """The entry under an id made of all that it says: a retry writes the same entry again."""
    said = entry.model_dump(exclude={"id"})
    parts = "\x00".join(str(said[name]) for name in _NAMED)
    return entry.model_copy(update={"id": hashlib.sha256(parts.encode()).hexdigest()[:_ID_LENGTH]})


def encode_audit(entry: AuditEntry) -> bytes:
    """The record value."""
    return entry.model_dump_json().encode()


def decode_audit(value: bytes) -> AuditEntry:
    """Read one record value; `pydantic.ValidationError` if it is not one."""
    return AuditEntry.model_validate_json(value)
