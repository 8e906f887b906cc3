"""The scheduler: jobs by calendar or interval, whose next times survive a restart.

What APScheduler promises is set, not assumed: one thread (jobs never overlap), a missed run is made
up for once however many were missed (coalesce), if it is not older than the job's own grace. The
next times stand in a SQLite file, so a run that fell into a stop is found late and made up for.
A job says by itself what is due: running it once more changes nothing.
"""

from __future__ import annotations

import fcntl
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

from meterline.reports.errors import SchedulerError
from meterline.schemas.clock import Clock

MISSED_SECONDS_MAX = 27 * 86_400
"""Nearly a month: whatever was missed for longer is the next run's business."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Monthly:
    """Once a month, at a day and time of the scheduler's time zone."""

    day: int
    hour: int
    minute: int


@dataclass(frozen=True, slots=True)
class Every:
    """Again and again; the first time after one interval."""

    seconds: int


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """One job."""

    name: str
    when: Monthly | Every
    run: Callable[[int], object]
    """Takes the present time, UTC ms. An exception is logged, and the next run comes as planned."""
    missed_seconds_max: int = MISSED_SECONDS_MAX
    """A run that is later than this is left out."""
    at_start: bool = False
    """Also whenever a scheduler starts: what a killed one began is not left lying."""


# The store keeps names, not functions; this process knows what they stand for.
_RUNNING: dict[str, tuple[ScheduledJob, Clock]] = {}


def run_job(key: str) -> None:
    """What the store names: runs the job that this process has under the key."""
    found = _RUNNING.get(key)
    if found is None:
        _log.warning("job.unknown", key=key)
        return
    job, clock = found
    _log.info("job.started", job=job.name)
    job.run(clock())


class Scheduler:
    """Jobs of one store; one scheduler at a time."""

    def __init__(
        self, store: Path, jobs: Sequence[ScheduledJob], clock: Clock, time_zone: str
    ) -> None:
        """Nothing runs before `start`.

        Args:
            store: the SQLite file of the next times; made when missing.
            jobs: with different names. A job of the store that is not among them is removed.
            clock: the present time, for the jobs.
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
            SchedulerError: another scheduler works with this store.
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
        self._scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=f"sqlite:///{self._store}")},
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1},
            timezone=self._time_zone,
        )
        self._scheduler.add_listener(_tell, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        # Paused until the jobs are known: a run that was missed must find its function.
        self._scheduler.start(paused=True)
        self._plan()
        self._scheduler.resume()

    def stop(self) -> None:
        """Wait for the job that runs, then let go of the store."""
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
                # Kept with its next time: one that lies in the past is a missed run.
                self._scheduler.modify_job(
                    key, misfire_grace_time=job.missed_seconds_max, **self._first(job)
                )
                continue
            self._scheduler.add_job(
                "meterline.reports.scheduler:run_job",
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


def _tell(event: Any) -> None:
    name = event.job_id.rpartition(":")[2]
    if event.code == EVENT_JOB_MISSED:
        _log.warning("job.missed", job=name, planned=str(event.scheduled_run_time))
    else:
        _log.error("job.failed", job=name, reason=f"{event.exception}")
