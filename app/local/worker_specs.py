"""The worker processes that `meterline up` starts, made from the table of workers."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

from meterline.app.settings import CLOSES_DIRECTORY, Settings, environment_of
from meterline.app.workers.table import WORKERS, Worker
from meterline.embedded.core.supervision import ProcessSpec

# Faust joins its group and reads its changelog back before it is ready; a million entries take
# about five seconds.
WORKER_READY_SECONDS = 90
# A worker that ignores SIGTERM this long is killed: a replay, never a loss.
WORKER_GRACE_SECONDS = 15
READY_TIMEOUT_SECONDS = 1.0


def worker_processes(
    streams_workers: int, workers: Iterable[Worker] = WORKERS
) -> dict[str, Worker]:
    """The processes of a pipeline by name: one of each worker, or several of the streams worker.

    Several are numbered from 1: `streams-1`, `streams-2`.
    """
    found: dict[str, Worker] = {}
    for worker in workers:
        if worker.name == "streams" and streams_workers > 1:
            found |= {f"streams-{number}": worker for number in range(1, streams_workers + 1)}
        else:
            found[worker.name] = worker
    return found


def worker_specs(
    settings: Settings,
    ports: Mapping[str, int],
    workers: Mapping[str, Worker],
    environment: Mapping[str, MutableMapping[str, str]],
    order: int,
) -> Iterator[ProcessSpec]:
    """What the supervisor needs to know of each worker process.

    Args:
        settings: of the pipeline.
        ports: metrics port of each process.
        workers: what each process runs (`worker_processes`).
        environment: further variables of a process, read again at each of its starts.
        order: of the supervisor.
    """
    for name, worker in workers.items():
        yield ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", "meterline.app.cli", worker.name),
            env=ChainMap(
                environment.get(name, {}), worker_environment(settings, name, ports[name])
            ),
            order=order,
            ready=_ready_check(settings.metrics_host, ports[name]),
            ready_timeout_seconds=WORKER_READY_SECONDS,
            stop_grace_seconds=WORKER_GRACE_SECONDS,
        )


def _ready_check(metrics_host: str, port: int) -> Callable[[], bool]:
    # A server that listens on every address answers on the loopback too.
    host = "127.0.0.1" if metrics_host in {"", "0.0.0.0"} else metrics_host  # noqa: S104 - compared

    def ready() -> bool:
        try:
            url = f"http://{host}:{port}/ready"
            with urllib.request.urlopen(url, timeout=READY_TIMEOUT_SECONDS) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
        except (OSError, urllib.error.URLError):
            return False

    return ready


def worker_environment(
    settings: Settings, name: str, metrics_port: int
) -> MutableMapping[str, str]:
    """Every setting of the pipeline as a worker process reads it: the variables of production.

    A worker differs from the pipeline in its data directory, its metrics port and its failpoint.
    """
    reports = settings.reports.model_copy(
        # Beside the data, not in the worker's own directory: `meterline close` writes there too.
        update={"directory": settings.reports.directory or settings.data_dir / CLOSES_DIRECTORY}
    )
    return environment_of(
        settings.model_copy(
            update={
                "data_dir": settings.data_dir / "run" / name,
                "metrics_port": metrics_port,
                "reports": reports,
                # A failpoint is an effect of one worker, and the others refuse its name: it is
                # given by `StackOptions.environment`.
                "crash_at": "",
            }
        )
    )
