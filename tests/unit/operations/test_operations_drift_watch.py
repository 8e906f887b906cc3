"""When drift is notified."""

from __future__ import annotations

from meterline.operations.drift_alert import due_alert
from meterline.operations.reconcile import ReconcileReport
from meterline.schemas.alert import AlertStatus


def report(windows: int) -> ReconcileReport:
    return ReconcileReport(
        period="2026-10",
        totals=10,
        events=5,
        spent_usd="1.000000000",
        drift_nano_usd=windows * 7,
        drift_events=0,
        drift_windows=windows,
        missing_batches=0,
        lanes_with_gaps=0,
        repaired=0,
        seconds=0.1,
        differences=(),
        gaps=(),
    )


def test_drift_is_notified_once_and_its_end_once() -> None:
    """Nothing while nothing changes; a second episode of the month is notified again."""
    assert due_alert(None, report(0), 1) is None
    fired = due_alert(None, report(2), 2)
    assert fired is not None
    assert (fired.status, fired.observed, fired.rule_id) == (
        AlertStatus.FIRING,
        14,
        "pipeline.drift",
    )
    assert due_alert(fired, report(3), 3) is None
    resolved = due_alert(fired, report(0), 4)
    assert resolved is not None
    assert (resolved.status, resolved.ends_at_ms) == (AlertStatus.RESOLVED, 4)
    assert due_alert(resolved, report(0), 5) is None
    again = due_alert(resolved, report(1), 6)
    assert again is not None
    assert again.dedup_key == fired.dedup_key
    assert len({fired.id, resolved.id, again.id}) == 3
