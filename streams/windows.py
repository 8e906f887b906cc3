"""The Faust window of the spend table: minute, hour, day and month of one moment.

                 ┌ minute  [ )
    timestamp ───┤ hour    [        )           ranges() yields all four, so one windowed table
                 │ day     [              )     holds every granularity
                 └ month   [                  )

Ranges are half-open `(start_ms, end_ms)` in integer UTC milliseconds; Faust's own convention is
seconds as floats, but it never computes with what a window yields.
"""

from __future__ import annotations

from faust.windows import Window
from mode import Seconds, want_seconds
from typing_extensions import override

from meterline.schemas.periods import Calendar
from meterline.streams.core.entries import Range


class SpendWindows(Window):
    """`schemas.periods.Calendar` as Faust sees it.

    `expires` stays None: stock expiry knows neither the kind of a range nor recovered entries, and
    sends no tombstones; the ledgers expire by themselves.
    """

    expires = None

    def __init__(self, calendar: Calendar) -> None:
        """Yield the windows of one billing time zone."""
        self._calendar = calendar

    @override
    def ranges(self, timestamp: float) -> list[Range]:  # type: ignore[override] # ints are floats
        """The four ranges that contain a time in seconds."""
        windows = self._calendar.windows(int(timestamp * 1000))
        return [(window.start_ms, window.end_ms) for window in windows]

    @override
    def stale(self, timestamp: float, latest_timestamp: float) -> bool:
        """Nothing is stale for Faust."""
        return False

    @override
    def current(self, timestamp: float) -> Range:
        """The month: the widest answer to "which window"."""
        return self.ranges(timestamp)[-1]

    @override
    def earliest(self, timestamp: float) -> Range:
        """The month."""
        return self.current(timestamp)

    @override
    def delta(self, timestamp: float, d: Seconds) -> Range:
        """The month that was current `d` ago."""
        return self.current(timestamp - want_seconds(d))
