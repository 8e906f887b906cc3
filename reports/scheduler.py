"""The scheduler: jobs by calendar or interval, whose next run times survive a restart.

    SchedulerError    another scheduler uses this store

What APScheduler promises is set, not assumed: one thread (jobs never overlap), a missed run is made
up for once however many were missed (coalesce), if it is not older than the job's misfire grace
time. Next run times are stored in a SQLite file, so a run that was due while the worker was stopped
is found at the next start and made up for. A job determines by itself what is due: an additional
run changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from meterline.reports.core.job_reference import replace_reference
from meterline.schemas.clock import Clock
from meterline.schemas.errors import MeterlineError

MISSED_SECONDS_MAX = 27 * 86_400
"""Nearly a month: what was missed for longer is left to the next run."""
RUN_JOB = "meterline.reports.scheduler:run_job"
"""The reference that is stored with every job."""
_RUN_JOB_BEFORE = "reports.scheduler:run_job"
"""The reference that releases before `meterline.*` stored."""

_log = structlog.get_logger()


class SchedulerError(MeterlineError):
    """Another scheduler uses this store."""


@dataclass(frozen=True, slots=True)
class Monthly:
    """Once a month, at a day and time of the scheduler's time zone."""

    day: int
    hour: int
    minute: int


@dataclass(frozen=True, slots=True)
class Every:
    """At a fixed interval; the first run is one interval after the start."""

    seconds: int


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """What is run, when, and how late a run may be."""

    name: str
    when: Monthly | Every
    run: Callable[[int], object]
    """Takes the current time, UTC ms. An exception is logged; the next run stays as planned."""
    missed_seconds_max: int = MISSED_SECONDS_MAX
    """Misfire grace time: a run that is later than this is skipped."""
    at_start: bool = False
    """Also run whenever a scheduler starts, to finish what a killed one began."""


# The store has keys, not functions: the jobs of this process by their key.
_RUNNING: dict[str, tuple[ScheduledJob, Clock]] = {}


def run_job(key: str) -> None:
    """Run the job that this process has under a key; what RUN_JOB refers to."""
    found = _RUNNING.get(key)
    if found is None:
        _log.warning("job.unknown", key=key)
        return
    job, clock = found
    _log.info("job.started", job=job.name)
    job.run(clock())


class Scheduler:
    """Runs the jobs of one store; one scheduler at a time."""

    def __init__(
        self, store: Path, jobs: Sequence[ScheduledJob], clock: Clock, time_zone: str
    ) -> None:
        """Create a stopped scheduler.

        Args:
            store: the SQLite file of the next run times; created when missing.
            jobs: with different names. A job of the store that is not among them is removed.
            clock: the current time, for the jobs.
            time_zone: of monthly jobs.
        """
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._time_zone = time_zone
        self._lock: TextIO | None = None
        self._scheduler: Any = None

    def start(self) -> None:
        """Run jobs from a thread of its own.

        Raises:
            SchedulerError: another scheduler uses this store.
        """
        self._store.parent.mkdir(parents=True, exist_ok=True)
        lock = self._store.with_suffix(".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            message = f"another reports worker runs with {self._store}: one is enough"
            raise SchedulerError(message) from None
        self._lock = lock
        _update_references(self._store)
        self._scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{self._store}")},
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1},
            timezone=self._time_zone,
        )
        self._scheduler.add_listener(_log_event, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        # Paused until the jobs are known: a run that was missed must find its function.
        self._scheduler.start(paused=True)
        self._plan()
        self._scheduler.resume()

    def stop(self) -> None:
        """Wait for the running job, then release the store."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)
            self._scheduler = None
        for job in self._jobs:
            _RUNNING.pop(self._key(job.name), None)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _plan(self) -> None:
        wanted = {self._key(job.name): job for job in self._jobs}
        _RUNNING.update({key: (job, self._clock) for key, job in wanted.items()})
        present = {job.id: job for job in self._scheduler.get_jobs()}
        for key in present.keys() - wanted.keys():
            self._scheduler.remove_job(key)
        for key, job in wanted.items():
            trigger = self._trigger(job.when)
            if key in present and str(present[key].trigger) == str(trigger):
                # Kept with its next run time: one that lies in the past is a missed run.
                self._scheduler.modify_job(
                    key, misfire_grace_time=job.missed_seconds_max, **self._first(job)
                )
                continue
            self._scheduler.add_job(
                RUN_JOB,
                trigger,
                args=[key],
                id=key,
                name=job.name,
                misfire_grace_time=job.missed_seconds_max,
                replace_existing=True,
                **self._first(job),
            )

    def _first(self, job: ScheduledJob) -> dict[str, datetime]:
        if not job.at_start:
            return {}
        return {"next_run_time": datetime.fromtimestamp(self._clock() / 1000, UTC)}

    def _trigger(self, when: Monthly | Every) -> Any:
        match when:
            case Monthly(day, hour, minute):
                return CronTrigger(day=day, hour=hour, minute=minute, timezone=self._time_zone)
            case Every(seconds):
                return IntervalTrigger(seconds=seconds, timezone=self._time_zone)

    def _key(self, name: str) -> str:
        return f"{self._store}:{name}"


def _log_event(event: Any) -> None:
    name = event.job_id.rpartition(":")[2]
    if event.code == EVENT_JOB_MISSED:
        _log.warning("job.missed", job=name, planned=str(event.scheduled_run_time))
    else:
        _log.error("job.failed", job=name, reason=f"{event.exception}")


def _update_references(store: Path) -> None:
    """Let the jobs of an earlier release refer to RUN_JOB; all of them in one transaction."""
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'apscheduler_jobs'"
        if connection.execute(named).fetchone() is None:
            return
        for key, state in connection.execute(
            "SELECT id, job_state FROM apscheduler_jobs"
        ).fetchall():
            try:
                updated = replace_reference(state, _RUN_JOB_BEFORE, RUN_JOB)
            except ValueError as error:
                # Left to APScheduler, which removes a job that it cannot read; it is planned again.
                _log.warning("job.unreadable", key=key, reason=str(error))
                continue
            if updated != state:
                connection.execute(
                    "UPDATE apscheduler_jobs SET job_state = ? WHERE id = ?", (updated, key)
                )
                _log.info("job.reference_updated", key=key)
