"""The scheduled reconciliation: its outcome as metrics, and drift as an alert `pipeline.drift`.

The alert is told once: when drift is first seen in a month, and once more when it is gone. What was
told is read back from the topic, so a restart tells nothing twice.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256

import structlog

from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.operations.pipeline import Pipeline
from meterline.operations.reconcile import ReconcileReport, month_window, reconcile
from meterline.schemas.alert import (
    Alert,
    AlertError,
    AlertStatus,
    RuleType,
    Severity,
    decode_alert,
    encode_alert,
)
from meterline.schemas.errors import UserError
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.money import usd_text
from meterline.schemas.periods import WindowKind
from meterline.schemas.topics import Topic

EVERY_SECONDS = 3_600
"""Drift is no matter of seconds, and a month of ten million events is summed up each time."""
WAIT_SECONDS = 60.0
RULE_ID = "pipeline.drift"
SCOPE = "pipeline"
_ID_LENGTH = 32

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """A job: call it with the present time."""

    pipeline: Pipeline
    meter: Meter

    def __call__(self, now_ms: int) -> None:
        """Reconcile the present month, say what was found.

        A pipeline that is too far behind to be compared is logged, and looked at the next time:
        lag has its own metrics.
        """
        month = month_window(self.pipeline.calendar, "", now_ms)
        try:
            report = reconcile(self.pipeline, month, now_ms, wait_seconds=WAIT_SECONDS)
        except UserError as error:
            _log.warning("reconcile.not_possible", reason=str(error))
            return
        self.meter.gauge(Metric.DRIFT_NANO_USD, report.drift_nano_usd)
        self.meter.gauge(Metric.DRIFT_WINDOWS, report.drift_windows)
        self.meter.gauge(Metric.MISSING_BATCHES, report.missing_batches)
        self.meter.gauge(Metric.RECONCILED_MS, now_ms)
        _log.info(
            "reconcile.done",
            totals=report.totals,
            drift_windows=report.drift_windows,
            missing_batches=report.missing_batches,
            seconds=report.seconds,
        )
        publish_drift_alert(self.pipeline.kafka("drift"), report, now_ms)


def publish_drift_alert(config: KafkaConfig, report: ReconcileReport, now_ms: int) -> Alert | None:
    """Publish the alert that a report asks for, unless it is published; what was published.

    Raises:
        KafkaClientError: the alerts cannot be read or written.
    """
    alert = due_alert(_last(config, report.period), report, now_ms)
    if alert is None:
        return None
    publish_records(
        config, [OutgoingRecord(Topic.ALERTS, alert.dedup_key.encode(), encode_alert(alert))]
    )
    _log.info("alert.published", status=alert.status.value, key=alert.dedup_key)
    return alert


def due_alert(last: Alert | None, report: ReconcileReport, now_ms: int) -> Alert | None:
    """What to tell after a report, given what was told last of its month. Pure."""
    firing = last is not None and last.status is AlertStatus.FIRING
    if firing == (not report.exact):
        return None
    if last is not None and firing:
        return last.model_copy(
            update={
                "id": _identity(last.dedup_key, AlertStatus.RESOLVED, last.starts_at_ms),
                "status": AlertStatus.RESOLVED,
                "ends_at_ms": now_ms,
                "summary": f"Resolved: {last.summary}",
            }
        )
    return Alert(
        id=_identity(_dedup_key(report.period), AlertStatus.FIRING, now_ms),
        dedup_key=_dedup_key(report.period),
        rule_id=RULE_ID,
        rule_type=RuleType.PIPELINE,
        status=AlertStatus.FIRING,
        severity=Severity.ERROR,
        scope=SCOPE,
        window=WindowKind.MONTH.value,
        period=report.period,
        threshold=1,
        unit="nano_usd",
        observed=report.drift_nano_usd,
        limit=0,
        percent=100,
        summary=(
            f"{report.drift_windows:,} totals of {report.period} differ from their events by "
            f"USD {usd_text(report.drift_nano_usd)} in all: see `meterline reconcile`"
        ),
        starts_at_ms=now_ms,
    )


def _dedup_key(period: str) -> str:
    return f"{RULE_ID}/1/{SCOPE}/{period}/0"


def _identity(key: str, status: AlertStatus, starts_at_ms: int) -> str:
    """Drift may come again in a month: each episode has its own."""
    return sha256(f"{key}\n{status.value}\n{starts_at_ms}".encode()).hexdigest()[:_ID_LENGTH]


def _last(config: KafkaConfig, period: str) -> Alert | None:
    """The newest alert of this rule and month."""
    last = None
    with closing(TopicReader(config, [Topic.ALERTS])) as reader:
        for record in reader.read_to_end(READ_SECONDS_MAX):
            if record.key != _dedup_key(period).encode() or record.value is None:
                continue
            try:
                last = decode_alert(record.value)
            except AlertError:
                continue  # not written by Meterline
    return last
