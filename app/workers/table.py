"""The table of workers: the processes of a pipeline, one line each.

    streams   usage.events -> totals                             group meterline-streams
    sink      topics -> ClickHouse                               group meterline-sink
    alerts    totals -> throttle commands and alerts             no group: reads from the beginning
    notify    alerts -> receivers                                group meterline-notify
    reports   closes months, pushes and serves their files       no group: works by a schedule

From it are made: the commands that run a worker (`app.cli`), the processes that `meterline up`
starts (`app.local.stack`) and the lag that `meterline status` shows. A new worker is a module with
a `start` function and one line here; one that commits offsets also has its group in
`schemas.groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TypeAlias, cast

from meterline.app.settings import Settings
from meterline.app.telemetry import PrometheusMeter
from meterline.schemas.groups import Group, GroupSpec, group_spec

Start: TypeAlias = Callable[[Settings, PrometheusMeter], int]
"""Runs a worker until SIGTERM or SIGINT; returns the exit code of its process."""

PANEL = "Workers, as production runs them"


@dataclass(frozen=True, slots=True)
class Worker:
    """One kind of worker process."""

    name: str
    """Its command, its process in `up` and `status`, and the label of its metrics."""
    start: str
    """`MODULE:FUNCTION` of a `Start`, imported by the process that runs the worker and only there:
    drivers take a second of processor time to load."""
    help: str
    """What `meterline --help` says of it."""
    group: Group | None = None
    """The consumer group whose committed offsets are its progress; None if it commits none."""
    panel: str = PANEL
    """The heading that `meterline --help` lists it under."""

    def load(self) -> Start:
        """Import the start function."""
        module, _, function = self.start.partition(":")
        return cast("Start", getattr(import_module(module), function))


WORKERS: tuple[Worker, ...] = (
    Worker(
        "streams",
        "meterline.app.workers.streams:start",
        "Fold usage events into spend per scope and window (Faust).",
        Group.STREAMS,
    ),
    Worker(
        "sink",
        "meterline.app.workers.sink:start",
        "Store events, snapshots, alerts and commands in ClickHouse.",
        Group.SINK,
    ),
    Worker(
        "alerts",
        "meterline.app.workers.alerts:start",
        "Apply the rules (the worker); routing, back-tests and rule tests.",
    ),
    Worker(
        "notify",
        "meterline.app.workers.notify:start",
        "Deliver alerts to their receivers.",
        Group.NOTIFY,
    ),
    Worker(
        "reports",
        "meterline.app.workers.reports:start",
        "Close months at their cut-off, push them to the ERP, serve their files.",
    ),
)
"""In the order in which `up` and `status` list them."""


def groups_of(workers: Iterable[Worker]) -> tuple[GroupSpec, ...]:
    """The consumer group of each worker that has one, under the worker's name."""
    return tuple(
        replace(group_spec(each.group), worker=each.name)
        for each in workers
        if each.group is not None
    )
