"""The reports worker: jobs of the scheduler, and the pull endpoint beside them.

Every job looks up by itself what is due, so a run too many changes nothing. A month that was
refused is tried again by `close-retry`; the reasons stand in closed_periods and in the log. It runs
at every start too, as does `push`: a close or a delivery that was killed resumes at once.
"""

from __future__ import annotations

import functools
import os
import signal

import structlog

from meterline.app.clock import now_ms
from meterline.app.settings import Settings, secret
from meterline.app.telemetry import PrometheusMeter
from meterline.app.wiring import kafka_config, pipeline, stop_on_signals
from meterline.control.store import read_policies
from meterline.operations.close import close_dependencies
from meterline.operations.drift_alert import EVERY_SECONDS, DriftWatch
from meterline.operations.push import push_due
from meterline.reports.booking.booking_lines import read_months_with_events
from meterline.reports.booking.core.inputs import mapping_of
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.close.close import CloseBusyError, CloseOutcome, close_month
from meterline.reports.close.core.close_due import due_months
from meterline.reports.erp.pull import ExportServer
from meterline.reports.scheduler import Every, Monthly, ScheduledJob, Scheduler
from meterline.schemas.finance import FinancePolicy
from meterline.schemas.metrics import Metric

CLOSE_RETRY_SECONDS = 900
"""Lag and drift clear within minutes; an accountant corrects a mapping within hours."""
PUSH_SECONDS = 600
"""The receiver that was away is asked again this often."""
ACTOR = "scheduler"
SCHEDULE_FILE = "schedule.sqlite"
CRASH_PREFIX = "close."
"""Test only: `crash_at` names the step of a close before which the process kills itself."""

_log = structlog.get_logger()


def start(settings: Settings, meter: PrometheusMeter) -> int:
    """Close months and push them when they are due until SIGTERM; serve their files.

    Raises:
        SchedulerError: another reports worker runs.
        KafkaClientError: policy cannot be read at the start.
        OSError: the exports' port is taken.
    """
    stop = stop_on_signals()
    root = pipeline(settings).closes
    policy = _finance_policy(settings)
    hour, minute = map(int, policy.close_time.split(":"))
    close = functools.partial(close_due, settings)

    def push(_at_ms: int) -> None:
        push_due(pipeline(settings), secret, now_ms, stop.wait)

    jobs = [
        ScheduledJob("close", Monthly(policy.close_day, hour, minute), close),
        ScheduledJob("close-retry", Every(CLOSE_RETRY_SECONDS), close, at_start=True),
        ScheduledJob("reconcile", Every(EVERY_SECONDS), DriftWatch(pipeline(settings), meter)),
        ScheduledJob("push", Every(PUSH_SECONDS), push, at_start=True),
    ]
    scheduler = Scheduler(root / SCHEDULE_FILE, jobs, now_ms, settings.time_zone)
    exports = _exports(settings)
    scheduler.start()
    try:
        if exports is not None:
            exports.start()
        meter.gauge(Metric.READY, 1)
        stop.wait()
    finally:
        scheduler.stop()
        if exports is not None:
            exports.stop()
    return 0


def close_due(settings: Settings, at_ms: int) -> None:
    """Close every month that is due; a refused one does not hold up the next."""

    def on_step(step: str) -> None:
        _log.info("close.step", step=step)
        if settings.crash_at == f"{CRASH_PREFIX}{step}":
            os.kill(os.getpid(), signal.SIGKILL)

    with close_dependencies(pipeline(settings), on_step) as dependencies:
        policy = mapping_of(dependencies.policies()).finance
        ledger = read_ledger(dependencies.client)
        stored = read_months_with_events(dependencies.client, settings.time_zone)
        for month in due_months(stored, ledger, policy, settings.time_zone, at_ms):
            try:
                result = close_month(dependencies, month.name, now_ms(), actor=ACTOR)
            except CloseBusyError:
                _log.info("close.busy", period=month.name)
                return
            if result.outcome is CloseOutcome.REFUSED:
                reasons = [str(each) for each in result.blockers]
                _log.warning("close.refused", period=month.name, reasons=reasons)
            else:
                _log.info("close.closed", period=month.name, manifest=result.manifest_sha256)


def _finance_policy(settings: Settings) -> FinancePolicy:
    """The published one, as of now."""
    return mapping_of(read_policies(kafka_config(settings, "reports"))).finance


def _exports(settings: Settings) -> ExportServer | None:
    section = settings.reports
    if not section.exports_port:
        return None
    token = secret(section.exports_token_env)
    if not token:
        _log.warning("exports.no_token", variable=section.exports_token_env)
        return None
    return ExportServer(
        pipeline(settings).closes, token, section.exports_host, section.exports_port
    )
