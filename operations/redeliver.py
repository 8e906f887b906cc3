"""Redelivery of notifications: to the channel that should have had them, or to another URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from meterline.alerting.notify.core.messages import body_of, message_id
from meterline.alerting.notify.core.retry_schedule import Attempt
from meterline.alerting.notify.sending import attempt_of
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.backends.webhook.client import WebhookClient
from meterline.backends.webhook.messages import WebhookRequest
from meterline.control.audit_log import audit_record
from meterline.reports.core.deliveries import DeliveryRow
from meterline.schemas.alert import Alert, decode_alert
from meterline.schemas.audit import AuditEntry, audit_entry
from meterline.schemas.delivery import Delivery, DeliveryOutcome, delivery_key, encode_delivery
from meterline.schemas.errors import UserError
from meterline.schemas.topics import Topic

# One request at a time: a redelivery is no load test.
ANSWER_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class RedeliveryTarget:
    """Another receiver than the channel's."""

    url: str
    secret: str = ""
    allow_private_address: bool = False

    @property
    def name(self) -> str:
        """The channel in the delivery log: without path and query, which may carry a token."""
        return f"replay:{urlsplit(self.url).hostname or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Redelivery:
    """The outcome of one message."""

    message_id: str
    channel: str
    outcome: str
    error: str = ""


def request_redelivery(
    config: KafkaConfig, rows: Sequence[DeliveryRow], actor: str, now_ms: int
) -> list[Redelivery]:
    """Ask the notify worker to send messages again, each to its own channel.

    Returns when the requests are durable. The id of a message stays what it was.
    """
    requests = [
        _delivery(row, DeliveryOutcome.PENDING, row.channel, now_ms, replayed_at_ms=now_ms)
        for row in rows
    ]
    _publish(config, requests, actor, now_ms)
    return [Redelivery(one.message_id, one.channel, one.outcome.value) for one in requests]


def deliver_to(
    config: KafkaConfig,
    rows: Sequence[DeliveryRow],
    target: RedeliveryTarget,
    actor: str,
    clock: Callable[[], int],
) -> list[Redelivery]:
    """Send messages to a URL, signed if the target has a secret, and log the attempts.

    A group's message goes as one request per alert: receivers of webhooks know no groups.
    """
    webhooks = WebhookClient()
    deliveries: list[Delivery] = []
    try:
        for row in rows:
            for alert in alerts_of(row):
                began_ms = clock()
                attempt = _attempt(webhooks, alert, target, began_ms)
                # No worker retries this.
                outcome = attempt.outcome
                if outcome is DeliveryOutcome.RETRY:
                    outcome = DeliveryOutcome.EXHAUSTED
                attempted = _delivery(row, outcome, target.name, began_ms, attempt=1)
                deliveries.append(
                    msgspec.structs.replace(
                        attempted,
                        message_id=message_id([alert]),
                        alert_id=alert.id,
                        alert_ids=(alert.id,),
                        alerts=(msgspec.Raw(alert.model_dump_json().encode()),),
                        http_status=attempt.http_status,
                        error=attempt.error,
                        duration_ms=clock() - began_ms,
                    )
                )
    finally:
        webhooks.close()
    _publish(config, deliveries, actor, clock())
    return [
        Redelivery(one.message_id, one.channel, one.outcome.value, one.error) for one in deliveries
    ]


def alerts_of(row: DeliveryRow) -> list[Alert]:
    """The alerts that a message was about."""
    if not row.alerts:
        message = f"{row.message_id}: the log does not hold its alerts (it is too old)"
        raise UserError(message)
    return [decode_alert(text.encode()) for text in row.alerts]


def _attempt(
    webhooks: WebhookClient, alert: Alert, target: RedeliveryTarget, now_ms: int
) -> Attempt:
    request = WebhookRequest(
        url=target.url,
        message_id=message_id([alert]),
        body=body_of(alert),
        at_ms=now_ms,
        secret=target.secret,
        allow_private_address=target.allow_private_address,
    )
    return attempt_of(webhooks.post(request)).result(ANSWER_SECONDS_MAX)


def _delivery(
    row: DeliveryRow,
    outcome: DeliveryOutcome,
    channel: str,
    at_ms: int,
    *,
    attempt: int = 0,
    replayed_at_ms: int = 0,
) -> Delivery:
    alerts = alerts_of(row)
    return Delivery(
        message_id=row.message_id,
        alert_id=row.alert_id,
        channel=channel,
        attempt=attempt,
        at_ms=at_ms,
        outcome=outcome,
        next_attempt_ms=at_ms if outcome is DeliveryOutcome.PENDING else 0,
        dedup_key=row.dedup_key,
        alerts=tuple(msgspec.Raw(text.encode()) for text in row.alerts),
        alert_ids=tuple(alert.id for alert in alerts),
        route=row.route,
        replayed_at_ms=replayed_at_ms,
        queue=row.queue,
    )


def _publish(config: KafkaConfig, deliveries: Sequence[Delivery], actor: str, now_ms: int) -> None:
    publish_records(
        config,
        [
            OutgoingRecord(
                Topic.DELIVERIES, delivery_key(one.message_id, one.channel), encode_delivery(one)
            )
            for one in deliveries
        ],
        [audit_record(_audit(one, actor, now_ms)) for one in deliveries],
    )


def _audit(delivery: Delivery, actor: str, now_ms: int) -> AuditEntry:
    return audit_entry(
        "delivery.replayed",
        f"delivery:{delivery.message_id}",
        at_ms=now_ms,
        actor=actor,
        reason=f"to {delivery.channel}",
    )
