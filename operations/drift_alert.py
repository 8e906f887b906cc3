"""The scheduled reconciliation: its outcome as metrics, and drift as an alert `pipeline.drift`.

The alert has the lifecycle of every other rule: it fires when drift is first seen in a month, is
resolved when it is gone, and may fire again. Its last record is read back from the topic, so a
restart notifies nothing twice.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import structlog

from meterline.alerting.core import lifecycle
from meterline.alerting.rules.evaluation import Subject
from meterline.alerting.rules.pipeline import DRIFT, DRIFT_SCOPE, evaluate_drift
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.publish import OutgoingRecord, publish_records
from meterline.backends.kafka.reader import READ_SECONDS_MAX, TopicReader
from meterline.operations.pipeline import Pipeline
from meterline.operations.reconcile import ReconcileReport, month_window, reconcile
from meterline.schemas.alert import (
    Alert,
    AlertError,
    decode_alert,
    encode_alert,
)
from meterline.schemas.errors import UserError
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.topics import Topic

EVERY_SECONDS = 3_600
"""Drift is no matter of seconds, and a month of ten million events is summed up each time."""
WAIT_SECONDS = 60.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """A job: call it with the current time."""

    pipeline: Pipeline
    meter: Meter

    def __call__(self, now_ms: int) -> None:
        """Reconcile the current month and publish what was found.

        A pipeline that is too far behind to be compared is logged, and compared the next time:
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
    """What to publish after a report, given the last alert of its month."""
    episode = None if last is None else lifecycle.recalled(None, last)
    evaluation = evaluate_drift(report.period, report.drift_windows, report.drift_nano_usd)
    moved = lifecycle.advance(episode, Subject(DRIFT_SCOPE), evaluation, 0, now_ms)
    return moved.alerts[-1] if moved.alerts else None


def _dedup_key(period: str) -> str:
    return lifecycle.dedup_key(str(DRIFT), 1, DRIFT_SCOPE, period, 0)


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
