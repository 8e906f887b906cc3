"""The chart of a back-test: spend of one scope, its alerts and its throttles."""

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
class ChartMarker:
    """A vertical line: an alert that fired or was resolved."""

    at_ms: int
    severity: Severity
    status: AlertStatus
    label: str


@dataclass(frozen=True, slots=True)
class ChartData:
    """Everything that is drawn; amounts in dollars, for the eye only."""

    title: str
    spend: Sequence[tuple[int, float]]
    """(time, spent since the start), in the order of time."""
    markers: Sequence[ChartMarker]
    states: Sequence[tuple[int, int, BreakerState]]
    """(from, to, state) while a throttle is in force."""


def check_format(path: Path) -> None:
    """Raise UserError unless the file name ends in a format that can be written."""
    if path.suffix not in FORMATS:
        message = f"{path}: the picture's name must end in {' or '.join(sorted(FORMATS))}"
        raise UserError(message)


def draw(data: ChartData, path: Path) -> None:
    """Write the chart; UserError if matplotlib is not installed."""
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
    for begin_ms, end_ms, state in data.states:
        colour = _STATES.get(state, "#eeeeee")
        axes.axvspan(_time(begin_ms), _time(end_ms), color=colour, lw=0, label=state.value)
    times = [_time(at_ms) for at_ms, _ in data.spend]
    axes.step(times, [usd for _, usd in data.spend], where="post", color="#222222", label="spent")
    for marker in data.markers:
        line = "-" if marker.status is AlertStatus.FIRING else ":"
        axes.axvline(_time(marker.at_ms), color=_COLOURS[marker.severity], ls=line, lw=1)
        if marker.status is AlertStatus.FIRING:
            where = (_time(marker.at_ms), 1.0)
            axes.annotate(
                marker.label,
                where,
                xycoords=("data", "axes fraction"),
                rotation=90,
                va="top",
                ha="right",
                fontsize=7,
                color=_COLOURS[marker.severity],
            )
    axes.set_title(data.title)
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
