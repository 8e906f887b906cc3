"""The scheduler: what was missed is made up for once, one runner, failures do not end it."""

import pickle
import queue
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meterline.app.clock import now_ms
from meterline.reports.core.job_reference import replace_reference
from meterline.reports.scheduler import (
    RUN_JOB,
    Every,
    Monthly,
    ScheduledJob,
    Scheduler,
    SchedulerError,
)

NOW_MS = 1_793_685_600_000
PATIENCE_SECONDS = 20


def runs_into(
    seen: queue.Queue[int], name: str = "close", grace: int = 27 * 86_400
) -> ScheduledJob:
    return ScheduledJob(name, Monthly(3, 6, 0), seen.put, grace)


def scheduler(folder: Path, *jobs: ScheduledJob) -> Scheduler:
    return Scheduler(folder / "schedule.sqlite", jobs, lambda: NOW_MS, "Asia/Shanghai")


def set_back(folder: Path, seconds: float) -> None:
    """Make every planned time lie in the past, as after a long stop."""
    with sqlite3.connect(folder / "schedule.sqlite") as store:
        for key, state in store.execute("SELECT id, job_state FROM apscheduler_jobs").fetchall():
            job = pickle.loads(state)  # noqa: S301 - written by this test
            job["next_run_time"] = datetime.now(UTC) - timedelta(seconds=seconds)
            store.execute(
                "UPDATE apscheduler_jobs SET next_run_time = ?, job_state = ? WHERE id = ?",
                (job["next_run_time"].timestamp(), pickle.dumps(job), key),
            )
    store.close()


def test_a_missed_run_is_made_up_for_once(tmp_path: Path) -> None:
    """Down over several cut-offs: the next start runs the job once, then waits for the next."""
    seen: queue.Queue[int] = queue.Queue()
    first = scheduler(tmp_path, runs_into(seen, grace=100 * 86_400))
    first.start()
    first.stop()
    assert seen.empty()
    set_back(tmp_path, 70 * 86_400)
    second = scheduler(tmp_path, runs_into(seen, grace=100 * 86_400))
    second.start()
    try:
        assert seen.get(timeout=PATIENCE_SECONDS) == NOW_MS
    finally:
        second.stop()
    assert seen.empty()


def test_a_run_too_old_is_left_out(tmp_path: Path) -> None:
    """What is later than the job's grace is not run; a second job shows that time passed."""
    seen: queue.Queue[int] = queue.Queue()
    other: queue.Queue[int] = queue.Queue()
    jobs = (runs_into(seen, grace=60), runs_into(other, "other"))
    first = scheduler(tmp_path, *jobs)
    first.start()
    first.stop()
    set_back(tmp_path, 3_600)
    second = scheduler(tmp_path, *jobs)
    second.start()
    try:
        assert other.get(timeout=PATIENCE_SECONDS) == NOW_MS
    finally:
        second.stop()
    assert seen.empty()


def test_one_runner(tmp_path: Path) -> None:
    """A second scheduler on the same store is refused; after a stop it may start."""
    first = scheduler(tmp_path)
    first.start()
    with pytest.raises(SchedulerError, match="another"):
        scheduler(tmp_path).start()
    first.stop()
    second = scheduler(tmp_path)
    second.start()
    second.stop()


def test_a_failing_job_runs_again(tmp_path: Path) -> None:
    """An exception is logged and the interval goes on."""
    seen: queue.Queue[int] = queue.Queue()

    def fail(now_ms: int) -> None:
        seen.put(now_ms)
        message = "on purpose"
        raise RuntimeError(message)

    running = scheduler(tmp_path, ScheduledJob("fails", Every(1), fail))
    running.start()
    try:
        for _ in range(2):
            assert seen.get(timeout=PATIENCE_SECONDS) == NOW_MS
    finally:
        running.stop()


def test_a_job_may_also_run_at_every_start(tmp_path: Path) -> None:
    """Its interval is far from over, and it runs once at each start all the same."""
    seen: queue.Queue[int] = queue.Queue()
    for _ in range(2):
        job = ScheduledJob("close-retry", Every(86_400), seen.put, at_start=True)
        running = Scheduler(tmp_path / "schedule.sqlite", [job], now_ms, "Asia/Shanghai")
        running.start()
        try:
            assert seen.get(timeout=PATIENCE_SECONDS) > NOW_MS
        finally:
            running.stop()
        assert seen.empty()


def test_a_job_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    """The store follows the code: a job that no longer exists is not run."""
    seen: queue.Queue[int] = queue.Queue()
    first = scheduler(tmp_path, runs_into(seen))
    first.start()
    first.stop()
    set_back(tmp_path, 60)
    other: queue.Queue[int] = queue.Queue()
    second = scheduler(tmp_path, ScheduledJob("other", Every(1), other.put))
    second.start()
    try:
        other.get(timeout=PATIENCE_SECONDS)
    finally:
        second.stop()
    assert seen.empty()


def as_written_before(folder: Path) -> dict[str, float]:
    """Give every stored job the reference of the release before `meterline.*`; its next times."""
    with sqlite3.connect(folder / "schedule.sqlite") as store:
        rows = store.execute("SELECT id, next_run_time, job_state FROM apscheduler_jobs").fetchall()
        for key, _, state in rows:
            job = pickle.loads(state)  # noqa: S301 - written by this test
            assert job["func"] == RUN_JOB
            job["func"] = "reports.scheduler:run_job"
            old = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
            store.execute("UPDATE apscheduler_jobs SET job_state = ? WHERE id = ?", (old, key))
    store.close()
    return {key: next_run_time for key, next_run_time, _ in rows}


def references(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "schedule.sqlite") as store:
        states = store.execute("SELECT job_state FROM apscheduler_jobs").fetchall()
    store.close()
    return {pickle.loads(state)["func"] for (state,) in states}  # noqa: S301 - written by this test


def next_times(folder: Path) -> dict[str, float]:
    with sqlite3.connect(folder / "schedule.sqlite") as store:
        found = dict(store.execute("SELECT id, next_run_time FROM apscheduler_jobs").fetchall())
    store.close()
    return found


def test_a_run_missed_under_the_release_before_is_made_up_for(tmp_path: Path) -> None:
    """A store with references of the release before keeps its jobs: a missed run is made up for
    once."""
    seen: queue.Queue[int] = queue.Queue()
    first = scheduler(tmp_path, runs_into(seen))
    first.start()
    first.stop()
    set_back(tmp_path, 2 * 86_400)
    as_written_before(tmp_path)
    for start in range(2):
        later = scheduler(tmp_path, runs_into(seen))
        later.start()
        try:
            if start == 0:
                assert seen.get(timeout=PATIENCE_SECONDS) == NOW_MS
        finally:
            later.stop()
        assert seen.empty()


def test_jobs_of_the_release_before_keep_their_next_run_times(tmp_path: Path) -> None:
    """The update of references moves no job: next run times stay what they were."""
    seen: queue.Queue[int] = queue.Queue()
    jobs = (
        runs_into(seen),
        ScheduledJob("push", Every(86_400), seen.put),
    )
    first = scheduler(tmp_path, *jobs)
    first.start()
    first.stop()
    before = as_written_before(tmp_path)
    assert len(before) == 2
    second = scheduler(tmp_path, *jobs)
    second.start()
    second.stop()
    assert next_times(tmp_path) == before
    assert references(tmp_path) == {RUN_JOB}
    assert seen.empty()


def test_a_job_that_cannot_be_read_is_planned_again(tmp_path: Path) -> None:
    """Bytes that are no pickle do not keep the scheduler from starting."""
    seen: queue.Queue[int] = queue.Queue()
    first = scheduler(tmp_path, runs_into(seen))
    first.start()
    first.stop()
    with sqlite3.connect(tmp_path / "schedule.sqlite") as store:
        store.execute("UPDATE apscheduler_jobs SET job_state = ?", (b"torn",))
    store.close()
    second = scheduler(tmp_path, runs_into(seen))
    second.start()
    second.stop()
    assert len(next_times(tmp_path)) == 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_only_the_reference_changes(protocol: int) -> None:
    """In every pickle protocol the reference is replaced and all else is kept, also long values."""
    job = {"func": "old:run", "args": ["old:run of another", "x" * 70_000], "at": NOW_MS}
    updated = replace_reference(pickle.dumps(job, protocol), "old:run", "new.package:run")
    assert pickle.loads(updated) == {**job, "func": "new.package:run"}  # noqa: S301 - made above
    assert replace_reference(updated, "old:run", "newer:run") == updated
