"""The only place that reads the wall clock."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Now, in UTC milliseconds."""
    return time.time_ns() // 1_000_000
