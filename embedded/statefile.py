"""The supervisor's state as a file, so that another process can show it."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from meterline.embedded.core.supervision import ProcessState, ProcessStatus

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class SupervisorReport:
    """What a state file says."""

    supervisor_pid: int
    alive: bool
    """Whether the supervisor that wrote it still runs; if not, the workers do not either."""
    written_ms: int
    workers: tuple[ProcessState, ...]


def write_report(path: Path, states: Iterable[ProcessState], now_ms: int) -> None:
    """Replace the file in one step: a reader sees the old one or the new one."""
    text = json.dumps(
        {
            "format": FORMAT_VERSION,
            "supervisor_pid": os.getpid(),
            # A process id comes back one day; together with its start time it does not.
            "supervisor_started": psutil.Process().create_time(),
            "written_ms": now_ms,
            "workers": [asdict(state) for state in states],
        }
    )
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text + "\n")
    temporary.replace(path)


def read_report(path: Path) -> SupervisorReport | None:
    """What the supervisor last wrote; None if there is no readable file."""
    try:
        content = json.loads(path.read_text())
        workers = tuple(
            ProcessState(**{**worker, "status": ProcessStatus(worker["status"])})
            for worker in content["workers"]
        )
        return SupervisorReport(
            supervisor_pid=content["supervisor_pid"],
            alive=_runs(content["supervisor_pid"], content["supervisor_started"]),
            written_ms=content["written_ms"],
            workers=workers,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _runs(pid: int, started: float) -> bool:
    try:
        # Both numbers come from the same kernel counter, so they are equal to the tick.
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.Error:
        return False
