"""The topic audit.log: who changed what, when and why."""

from __future__ import annotations

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.schemas.audit import AuditEntry, encode_audit
from meterline.schemas.topics import Topic


def audit_record(entry: AuditEntry) -> OutgoingRecord:
    """The record of one entry."""
    return OutgoingRecord(Topic.AUDIT_LOG, entry.object_id.encode(), encode_audit(entry))


def write_audit(config: KafkaConfig, entry: AuditEntry) -> None:
    """Append one entry; returns when it is durable.

    Raises:
        KafkaClientError: it is not; call again with the same entry.
    """
    publish_records(config, [audit_record(entry)])
