"""The policy store: the compacted topic control.policies, and the audit log beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import structlog

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.control.audit_log import audit_record
from meterline.control.policy.plan import PolicyChange, audit_entries
from meterline.schemas.audit import AuditEntry
from meterline.schemas.policy import (
    PolicyObject,
    PolicyRecordError,
    decode_policy,
    encode_policy,
    object_id,
)
from meterline.schemas.topics import Topic

_log = structlog.get_logger()


def read_policies(
    config: KafkaConfig, timeout_seconds: float = READ_SECONDS_MAX
) -> dict[str, PolicyObject]:
    """The published objects by id, as of now.

    A record that is no policy object counts as absent and is logged: the next `apply` writes a
    good one over it.

    Args:
        config: the cluster.
        timeout_seconds: by when the topic must have been read to its end.

    Raises:
        BrokerUnavailableError: no broker answers, or not read within the time.
        KafkaFatalError: the topic does not exist.
    """
    policies: dict[str, PolicyObject] = {}
    with closing(TopicReader(config, [Topic.POLICIES])) as reader:
        for record in reader.read_to_end(timeout_seconds):
            key = (record.key or b"").decode(errors="replace")
            policies.pop(key, None)
            if record.value is None:
                continue
            try:
                item = decode_policy(record.value)
                if object_id(item) != key:
                    message = f"is about {object_id(item)}"
                    raise PolicyRecordError(message)  # noqa: TRY301 - handled as any bad record
            except PolicyRecordError as error:
                _log.warning(
                    "policy.record_unreadable", key=key, offset=record.offset, reason=str(error)
                )
            else:
                policies[key] = item
    return policies


def publish(
    config: KafkaConfig,
    changes: Sequence[PolicyChange],
    *,
    actor: str,
    reason: str,
    at_ms: int,
) -> None:
    """Publish planned changes and write them to the audit log; returns when both are durable.

    A retry with the same arguments publishes the same bytes: the topic's newest record per key
    stays what it is, and the audit entries have the same ids.

    Args:
        config: the cluster.
        changes: from `plan`.
        actor: the operator, for the audit log.
        reason: the reason, for the audit log.
        at_ms: now, UTC ms; the same for a retry.

    Raises:
        KafkaClientError: not everything is durable; call again with the same arguments.
    """
    write(
        config,
        [(change.object_id, change.after) for change in changes],
        audit_entries(changes, actor=actor, reason=reason, at_ms=at_ms),
    )


def write(
    config: KafkaConfig,
    objects: Sequence[tuple[str, PolicyObject | None]],
    entries: Sequence[AuditEntry],
) -> None:
    """Write policy objects (None deletes) by their ids, and the audit log; as `publish`."""
    publish_records(
        config,
        # 1. The policy. One partition, one producer: readers see parents before children. It is
        #    durable before anything says that it happened. A crash up to here leaves a part of the
        #    changes published: the next plan shows the rest.
        [
            OutgoingRecord(
                Topic.POLICIES, name.encode(), None if item is None else encode_policy(item)
            )
            for name, item in objects
        ],
        # 2. The audit log never claims what did not happen. A crash before it leaves changes
        #    without an entry; the object's version still shows that it was changed.
        [audit_record(entry) for entry in entries],
    )
    # 3. Only when this returns was the change applied in the eyes of the caller.
