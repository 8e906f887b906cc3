"""Deliveries: one record per attempt to send one message to one channel.

The newest record of a (message, channel) is the state of the delivery; the topic `deliveries` is at
the same time the log that operators read and the record that a restarted notifier continues from.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class DeliveryOutcome(StrEnum):
    """The result of an attempt."""

    PENDING = "pending"
    """Written down before its first attempt (number 0): a group's message, a fallback's or a
    replay's, which no alert record alone could restore after a crash."""
    MUTED = "muted"
    """Not notified: silenced, in maintenance, or inhibited by another alert; `error` names which.
    Notified when that ends, if it still fires."""
    DELIVERED = "delivered"
    RETRY = "retry"
    """Failed in a way that may pass: retried at `next_attempt_ms`."""
    REFUSED = "refused"
    """The receiver's response is final: a 3xx, or a 4xx other than 408, 410 and 429."""
    GONE = "gone"
    """The receiver answered 410: the channel gets nothing more until its policy changes."""
    FORBIDDEN = "forbidden"
    """Not sent: the address is not allowed, or the channel's secret or URL is unusable."""
    EXHAUSTED = "exhausted"
    """The last attempt of the schedule failed."""


FINAL = frozenset(DeliveryOutcome) - {
    DeliveryOutcome.RETRY,
    DeliveryOutcome.PENDING,
    DeliveryOutcome.MUTED,
}
"""Outcomes after which the message is not tried again."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt; the record key is `delivery_key`."""

    message_id: str
    """The webhook-id: the same in every attempt, made of the alert's id and status."""
    alert_id: str
    channel: str
    attempt: int
    """From 1; 0 where nothing was tried."""
    at_ms: int
    outcome: DeliveryOutcome
    http_status: int = 0
    """0 without a response."""
    error: str = ""
    """A short sentence; never a secret, never a URL's path or query."""
    next_attempt_ms: int = 0
    """When it is tried again; 0 after a final outcome."""
    dedup_key: str = ""
    duration_ms: int = 0
    channel_fingerprint: str = ""
    """Of the channel's policy at the attempt: a 410 is final while the policy is the same.
    Not stored in ClickHouse."""
    alerts: tuple[msgspec.Raw, ...] = ()
    """The alerts of the message, as JSON: a restarted notifier sends them again, and a replay
    sends them."""
    alert_ids: tuple[str, ...] = ()
    """The ids of `alerts`; `alert_id` is the first."""
    route: str = ""
    """Id of the route that chose the channel; empty where every channel is used."""
    replayed_at_ms: int = 0
    """When an operator requested the replay; 0 without. Not stored in ClickHouse."""
    queue: str = ""
    """Messages of one queue are sent in order: the incident's key, or the group's."""


_decoder = msgspec.json.Decoder(Delivery)


def delivery_key(message_id: str, channel: str) -> bytes:
    """The record key."""
    return f"{message_id} {channel}".encode()


def encode_delivery(delivery: Delivery) -> bytes:
    """The record value."""
    return msgspec.json.encode(delivery)


def decode_delivery(value: bytes) -> Delivery:
    """Read one record value; `msgspec.MsgspecError` if it is not one."""
    return _decoder.decode(value)
