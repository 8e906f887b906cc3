"""What fires now, folded from the alerts topic. Pure.

Read from the topic's beginning when the worker takes charge, and then record by record as it
works. A record that was folded already changes nothing, so reading an alert again after a crash
does not bring back what was resolved since.
"""

from __future__ import annotations

from meterline.alerting.notify.core.messages import incident_key
from meterline.schemas.alert import Alert, AlertStatus


class ActiveAlerts:
    """The firing alerts by their dedup key."""

    def __init__(self) -> None:
        """Start with none."""
        self._firing: dict[str, Alert] = {}
        self._incidents: dict[str, set[str]] = {}
        self._scopes: dict[str, set[str]] = {}
        self._next_offset = 0

    def fold(self, alert: Alert, offset: int) -> None:
        """Take the record at an offset in."""
        if offset < self._next_offset:
            return
        self._next_offset = offset + 1
        key, incident = alert.dedup_key, incident_key(alert)
        if alert.status is AlertStatus.FIRING:
            self._firing[key] = alert
            self._incidents.setdefault(incident, set()).add(key)
            self._scopes.setdefault(alert.scope, set()).add(key)
            return
        if alert.status is not AlertStatus.RESOLVED:
            return  # it never fired
        self._firing.pop(key, None)
        for index, name in ((self._incidents, incident), (self._scopes, alert.scope)):
            known = index.get(name, set())
            known.discard(key)
            if not known:
                index.pop(name, None)

    def is_firing(self, alert: Alert) -> bool:
        """Whether an alert was not resolved since."""
        return alert.dedup_key in self._firing

    def of_incident(self, alert: Alert) -> tuple[Alert, ...]:
        """The firing alerts of one incident."""
        keys = self._incidents.get(incident_key(alert), ())
        return tuple(self._firing[key] for key in sorted(keys))

    def of_scope(self, scope: str) -> tuple[Alert, ...]:
        """The firing alerts of one scope."""
        return tuple(self._firing[key] for key in sorted(self._scopes.get(scope, ())))
