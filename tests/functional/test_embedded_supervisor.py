"""The supervisor with real child processes."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from meterline.embedded.core.supervision import (
    ProcessSpec,
    ProcessState,
    ProcessStatus,
    RestartPolicy,
)
from meterline.embedded.errors import WorkerStartError
from meterline.embedded.statefile import read_report
from meterline.embedded.supervisor import Supervisor

pytestmark = pytest.mark.functional

DEADLINE_SECONDS = 20.0
QUICK = RestartPolicy(backoff_first_seconds=0.1, backoff_max_seconds=0.2)
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)"
)
NAMES_SIGTERM = (
    "import signal, sys, time\n"
    "def end(*_):\n    print('asked to end', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(600)"
)

Start = Callable[..., Supervisor]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.01)


def state(supervisor: Supervisor, name: str) -> ProcessState:
    return next(one for one in supervisor.states() if one.name == name)


def clock() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervise(log: io.StringIO, tmp_path: Path) -> Iterator[Start]:
    made: list[Supervisor] = []

    def build(*specs: ProcessSpec, policy: RestartPolicy = QUICK) -> Supervisor:
        supervisor = Supervisor(
            specs,
            log,
            clock=clock,
            environment=os.environ,
            state_file=tmp_path / "state.json",
            log_file=tmp_path / "workers.log",
            policy=policy,
        )
        made.append(supervisor)
        return supervisor

    yield build
    for supervisor in made:
        supervisor.stop()


def test_start_waits_for_a_lower_order_before_it_starts_the_next(
    supervise: Start, tmp_path: Path
) -> None:
    """A worker starts only when every worker of a lower order is ready."""
    gate = tmp_path / "gate"
    first = f"import time, pathlib; time.sleep(0.3); pathlib.Path({str(gate)!r}).touch(); {SLEEPS}"
    second = f"import pathlib; print(pathlib.Path({str(gate)!r}).exists(), flush=True); {SLEEPS}"
    supervisor = supervise(
        ProcessSpec("second", python(second), order=2),
        ProcessSpec("first", python(first), order=1, ready=gate.exists),
    )
    supervisor.start()
    assert [one.name for one in supervisor.states()] == ["first", "second"]
    assert [one.status for one in supervisor.states()] == [ProcessStatus.RUNNING] * 2
    until(lambda: "second     | True" in (tmp_path / "workers.log").read_text(), "second's line")


def test_the_hook_runs_between_the_orders(supervise: Start) -> None:
    """Before an order starts, everything of the lower orders is ready; its failure stops all."""
    supervisor = supervise(
        ProcessSpec("server", python(SLEEPS), order=1),
        ProcessSpec("worker", python(SLEEPS), order=2),
    )
    seen: list[tuple[int, list[ProcessStatus]]] = []

    def note(order: int) -> None:
        seen.append((order, [one.status for one in supervisor.states()]))
        if order == 2:
            message = "no topics"
            raise ValueError(message)

    with pytest.raises(ValueError, match="no topics"):
        supervisor.start(note)
    waiting = ProcessStatus.WAITING
    assert seen == [(1, [waiting, waiting]), (2, [ProcessStatus.RUNNING, waiting])]
    assert state(supervisor, "server").pid is None


def test_stop_ends_the_last_order_first(supervise: Start, log: io.StringIO) -> None:
    """Workers that depend on a server are stopped before it."""
    supervisor = supervise(
        ProcessSpec("server", python(NAMES_SIGTERM), order=1),
        ProcessSpec("worker", python(NAMES_SIGTERM), order=2),
    )
    supervisor.start()
    until(lambda: log.getvalue().count("| up") == 2, "both up")
    supervisor.stop()
    lines = log.getvalue().splitlines()
    assert lines.index("worker     | asked to end") < lines.index("server     | asked to end")
    assert {one.status for one in supervisor.states()} == {ProcessStatus.STOPPED}
    assert supervisor.wait(0)


def test_a_killed_worker_is_started_again(supervise: Start) -> None:
    """A worker that dies by kill -9 comes back as a new process and the restart is counted."""
    supervisor = supervise(ProcessSpec("worker", python(SLEEPS)))
    supervisor.start()
    before = state(supervisor, "worker")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: state(supervisor, "worker").restarts == 1, "restarted")
    until(lambda: state(supervisor, "worker").status is ProcessStatus.RUNNING, "running")
    after = state(supervisor, "worker")
    assert after.pid not in (None, before.pid)
    assert after.exit_status == -signal.SIGKILL


def test_restart_replaces_the_process_without_a_pause(supervise: Start) -> None:
    """An asked restart ends the old process, starts a new one and is no failure."""
    supervisor = supervise(
        ProcessSpec("worker", python(SLEEPS)), policy=RestartPolicy(backoff_first_seconds=3600)
    )
    supervisor.start()
    old = state(supervisor, "worker").pid
    supervisor.restart("worker")
    until(lambda: state(supervisor, "worker").restarts == 1, "restarted")
    assert state(supervisor, "worker").pid != old
    with pytest.raises(KeyError):
        supervisor.restart("nobody")


def test_a_worker_deaf_to_sigterm_is_killed_after_its_grace(
    supervise: Start, log: io.StringIO
) -> None:
    """A worker that ignores SIGTERM is gone soon after its grace, and the log says why."""
    supervisor = supervise(ProcessSpec("deaf", python(IGNORES_SIGTERM), stop_grace_seconds=0.3))
    supervisor.start()
    until(lambda: "| deaf" in log.getvalue(), "deaf up")
    pid = state(supervisor, "deaf").pid
    assert pid is not None
    begun = time.monotonic()
    supervisor.stop()
    assert 0.3 <= time.monotonic() - begun < DEADLINE_SECONDS
    assert not psutil.pid_exists(pid)
    assert "deaf ignored SIGTERM for 0.3 s: SIGKILL" in log.getvalue()


def test_a_worker_that_keeps_ending_makes_the_start_fail(supervise: Start) -> None:
    """The start fails after a few ends in a row, with the worker's name and its last words."""
    supervisor = supervise(
        ProcessSpec("good", python(SLEEPS), order=1),
        ProcessSpec("bad", python("print('no key'); raise SystemExit(7)"), order=2, ready=bool),
    )
    with pytest.raises(WorkerStartError) as caught:
        supervisor.start()
    message = str(caught.value)
    assert message == "worker bad ended 3 time(s) at start, last with status 7: no key"
    assert state(supervisor, "good").status is ProcessStatus.STOPPED


def test_a_server_that_says_its_user_must_act_is_not_tried_again(supervise: Start) -> None:
    """Exit status 2 (busy port, full disk) fails the start at once."""
    code = "import sys; print('port 1 is in use'); sys.exit(2)"
    supervisor = supervise(ProcessSpec("broker", python(code), ready=bool))
    with pytest.raises(WorkerStartError, match=r"broker ended 1 time.*port 1 is in use"):
        supervisor.start()


def test_a_worker_that_is_never_ready_makes_the_start_fail(supervise: Start) -> None:
    """The start fails when the ready check has not held in time, and says what it said."""

    def never() -> bool:
        message = "no answer"
        raise ConnectionError(message)

    supervisor = supervise(
        ProcessSpec("slow", python(SLEEPS), ready=never, ready_timeout_seconds=0.3)
    )
    with pytest.raises(WorkerStartError, match=r"slow was not ready within 0.3 s .*no answer"):
        supervisor.start()


def test_a_program_that_does_not_exist_makes_the_start_fail(supervise: Start) -> None:
    """A wrong program name is an error that names the worker, not an exception of the thread."""
    supervisor = supervise(ProcessSpec("ghost", ("/nonexistent/program",), ready=bool))
    with pytest.raises(WorkerStartError, match=r"worker ghost ended"):
        supervisor.start()


def test_a_crashing_worker_is_shown_in_backoff(supervise: Start) -> None:
    """After the start, a worker that keeps ending is retried and shown with its last status."""
    code = "import time; time.sleep(0.2); raise SystemExit(5)"
    supervisor = supervise(ProcessSpec("flaky", python(code)))
    supervisor.start()
    until(lambda: state(supervisor, "flaky").restarts >= 2, "two restarts")
    until(lambda: state(supervisor, "flaky").status is ProcessStatus.BACKOFF, "backoff")
    assert state(supervisor, "flaky").exit_status == 5


def test_the_state_file_shows_another_process_the_workers(supervise: Start, tmp_path: Path) -> None:
    """The state file lists every worker with pid, status and memory, and who wrote it."""
    supervisor = supervise(ProcessSpec("worker", python(SLEEPS)))
    supervisor.start()

    def shown() -> bool:
        report = read_report(tmp_path / "state.json")
        if report is None or report.workers[0].status is not ProcessStatus.RUNNING:
            return False
        # The first figure may be that of a process still between fork and exec.
        return (report.workers[0].rss_bytes or 0) > 1_000_000

    until(shown, "running in the file, with its memory")
    report = read_report(tmp_path / "state.json")
    assert report is not None
    assert report.alive
    assert report.supervisor_pid == os.getpid()
    assert report.workers[0].pid == state(supervisor, "worker").pid
    supervisor.stop()
    stopped = read_report(tmp_path / "state.json")
    assert stopped is not None
    assert stopped.workers[0].status is ProcessStatus.STOPPED


def test_no_state_file_is_no_report(tmp_path: Path) -> None:
    """A missing or broken state file reads as None."""
    assert read_report(tmp_path / "state.json") is None
    (tmp_path / "state.json").write_text('{"format": 1')
    assert read_report(tmp_path / "state.json") is None


def test_workers_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """When the supervisor is killed by SIGKILL, its workers do not run on."""
    code = (
        "import io, os, sys, time\n"
        "from meterline.embedded.supervisor import Supervisor\n"
        "from meterline.embedded.core.supervision import ProcessSpec\n"
        f"s = Supervisor([ProcessSpec('w', (sys.executable, '-c', {SLEEPS!r}))], sys.stderr,\n"
        "    clock=lambda: 0, environment=os.environ)\n"
        "s.start(); print(s.states()[0].pid, flush=True); time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        python(code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
    ) as parent:
        assert parent.stdout is not None
        worker_pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not _runs(worker_pid), "the worker is gone")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_flood_of_output_is_logged_whole(supervise: Start, log: io.StringIO) -> None:
    """A worker that writes a lot before it ends loses no line."""
    code = f"for i in range(20000): print('line', i)\n{SLEEPS}"
    supervisor = supervise(ProcessSpec("loud", python(code)))
    supervisor.start()
    until(lambda: "| up" in log.getvalue(), "the last line")
    assert log.getvalue().count("loud       | line") == 20_000
