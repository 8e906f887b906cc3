"""Where policy is kept: the compacted topic control.policies, and the audit log beside it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.control.policy.plan import PolicyChange, audit_entries
from meterline.schemas.audit import AuditEntry, encode_audit
from meterline.schemas.policy import (
    PolicyObject,
    PolicyRecordError,
    decode_policy,
    encode_policy,
    object_id,
)
from meterline.schemas.topics import Topic

# A live broker acknowledges thousands of objects in a second.
PUBLISH_SECONDS_MAX = 30.0

_log = structlog.get_logger()


def read_policies(config: KafkaConfig, timeout: float) -> dict[str, PolicyObject]:
    """The published objects by id, as of now.

    A record that is no policy object counts as absent and is logged: the next `apply` writes a
    good one over it.

    Args:
        config: the cluster.
        timeout: seconds until the topic must have been read to its end.

    Raises:
        BrokerUnavailable: not read within the time.
        Stop: the topic does not exist.
    """
    policies: dict[str, PolicyObject] = {}
    reader = TopicReader(config, [Topic.POLICIES])
    try:
        for record in reader.read_to_end(timeout):
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
    finally:
        reader.close()
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
        actor: who publishes.
        reason: why.
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
    producer = Producer(config)
    try:
        # 1. The policy. One partition, one producer: readers see parents before children.
        for name, item in objects:
            producer.send(
                Topic.POLICIES, name.encode(), None if item is None else encode_policy(item)
            )
        # 2. Durable before anything says that it happened. A crash up to here leaves a part of
        #    the changes published: the next plan shows the rest.
        producer.flush(PUBLISH_SECONDS_MAX)
        # 3. The audit log never claims what did not happen. A crash before it leaves changes
        #    without an entry; the object's version still tells that it was changed.
        for entry in entries:
            producer.send(Topic.AUDIT_LOG, entry.object_id.encode(), encode_audit(entry))
        # 4. Only when this returns was the change applied in the eyes of the caller.
        producer.flush(PUBLISH_SECONDS_MAX)
    finally:
        producer.close()
