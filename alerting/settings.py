"""Settings of the alerts and notify workers; rules and channels are policy, not settings."""

from __future__ import annotations

from dataclasses import dataclass

from meterline.schemas.groups import Group


@dataclass(frozen=True, slots=True)
class AlertingSettings:
    """How the alerts worker runs."""

    poll_seconds: float = 0.25
    """The longest wait for records: bounds how late a timer fires. Records end the wait."""
    start_timeout_seconds: float = 120
    """The longest that reading the topics at the start may take."""
    streams_group: str = Group.STREAMS.value
    """Consumer group of the streams workers, whose lag is checked."""
    flush_timeout_seconds: float = 35
    """Longer than the producer's own delivery timeout, so that its error comes first."""
    crash_at: str = ""
    """Test only: an `AlertingFailpoint`, or `NAME:N`, at which the process kills itself."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """How the notify worker runs."""

    group: str = Group.NOTIFY.value
    poll_seconds: float = 0.25
    start_timeout_seconds: float = 120
    flush_timeout_seconds: float = 35
    request_timeout_seconds: float = 15
    """Standard Webhooks asks receivers to answer within 15 s."""
    ca_file: str = ""
    """PEM file of certificate authorities that receivers' certificates may come from, beside the
    usual ones."""
    retry_seconds: tuple[int, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Delay before each attempt, the example schedule of Standard Webhooks: 3 days in all."""
    pending_max: int = 10_000
    """Undelivered messages in memory, over all channels; the worker reads no more alerts while
    there are as many. Every one of them is also in the delivery log."""
    crash_at: str = ""
    """Test only: an `AlertingFailpoint`, or `NAME:N`, at which the process kills itself."""
