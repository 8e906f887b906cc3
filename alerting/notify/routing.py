"""Which channels hear of an alert: those whose least severity it reaches. Pure."""

from __future__ import annotations

from schemas.alert import TOLD, Alert, Severity
from schemas.policy import NotifyPolicy

LOG_CHANNEL = "log"
"""The channel that is always there: one line per alert in the worker's log."""
_LOUDNESS = {severity.value: rank for rank, severity in enumerate(Severity)}


def channels_for(alert: Alert, policy: NotifyPolicy) -> tuple[str, ...]:
    """The ids of the channels, the log first.

    A channel with an unknown `min_severity` hears everything: too loud is safer than silent.
    """
    if alert.status not in TOLD:
        return ()  # it waits until it has held for long enough: nobody is told yet
    loudness = _LOUDNESS[alert.severity]
    heard = (
        channel.id
        for channel in policy.channels
        if channel.id != LOG_CHANNEL and loudness >= _LOUDNESS.get(channel.min_severity, 0)
    )
    return (LOG_CHANNEL, *dict.fromkeys(heard))
