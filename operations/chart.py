"""The picture of a back-test: spend of one scope, its budget's thresholds, firings and throttles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meterline.schemas.alert import AlertStatus, Severity
from meterline.schemas.errors import UserError
from meterline.schemas.throttle import BreakerState

FORMATS = frozenset({".svg", ".png"})
_COLOURS = {
    Severity.INFO: "#4c78a8",
    Severity.WARNING: "#e6a817",
    Severity.ERROR: "#e45756",
    Severity.CRITICAL: "#a1001f",
}
_STATES = {
    BreakerState.THROTTLED: "#fde9b8",
    BreakerState.HALF_OPEN: "#fbd0a0",
    BreakerState.OPEN: "#f6b6b6",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A firing or a resolution."""

    at_ms: int
    severity: Severity
    status: AlertStatus
    label: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn; amounts in dollars, for the eye only."""

    title: str
    spend: Sequence[tuple[int, float]]
    """(time, spent since the start), in the order of time."""
    marks: Sequence[Mark]
    states: Sequence[tuple[int, int, BreakerState]]
    """(from, to, state) while a throttle is in force."""


def check_format(path: Path) -> None:
    """UserError unless the name ends as a picture's."""
    if path.suffix not in FORMATS:
        message = f"{path}: the picture's name must end in {' or '.join(sorted(FORMATS))}"
        raise UserError(message)


def draw(scene: Scene, path: Path) -> None:
    """Write the picture; UserError if the library for it is not installed."""
    check_format(path)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        message = "pictures need matplotlib: pip install 'meterline[pictures]'"
        raise UserError(message) from None
    # Its types name numbers only; times are converted, as its documentation says.
    axes: Any
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for begin_ms, end_ms, state in scene.states:
        colour = _STATES.get(state, "#eeeeee")
        axes.axvspan(_time(begin_ms), _time(end_ms), color=colour, lw=0, label=state.value)
    times = [_time(at_ms) for at_ms, _ in scene.spend]
    axes.step(times, [usd for _, usd in scene.spend], where="post", color="#222222", label="spent")
    for mark in scene.marks:
        line = "-" if mark.status is AlertStatus.FIRING else ":"
        axes.axvline(_time(mark.at_ms), color=_COLOURS[mark.severity], ls=line, lw=1)
        if mark.status is AlertStatus.FIRING:
            where = (_time(mark.at_ms), 1.0)
            axes.annotate(
                mark.label,
                where,
                xycoords=("data", "axes fraction"),
                rotation=90,
                va="top",
                ha="right",
                fontsize=7,
                color=_COLOURS[mark.severity],
            )
    axes.set_title(scene.title)
    axes.set_ylabel("US dollars since the start")
    axes.set_xlabel("UTC")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="upper left")
    figure.autofmt_xdate()
    figure.savefig(path)


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
