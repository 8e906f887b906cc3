"""Audit entries: who changed what, when and why, before and after."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class AuditEntry(BaseModel):
    """One administrative action; the record key is `object_id`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
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


def encode_audit(entry: AuditEntry) -> bytes:
    """The record value."""
    return entry.model_dump_json().encode()


def decode_audit(value: bytes) -> AuditEntry:
    """Read one record value; `pydantic.ValidationError` if it is not one."""
    return AuditEntry.model_validate_json(value)
