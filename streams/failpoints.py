"""Crash points: named effects at which a test makes the process kill itself.

    flush.before_letters  flush.before_entries  flush.amid_entries  flush.after_entries
    flush.after_state     flush.after_ack

`NAME` kills at the first pass, `NAME:N` at the N-th. Without one, `NOTHING` is called: six calls of
an empty function per flush.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from meterline.schemas.errors import MeterlineError

CrashPoint: TypeAlias = Callable[[str], None]

CRASH_POINTS = (
    "flush.before_letters",
    "flush.before_entries",
    "flush.amid_entries",
    "flush.after_entries",
    "flush.after_state",
    "flush.after_ack",
)
CRASH_STATUS = 86


class UnknownCrashPointError(MeterlineError, ValueError):
    """A crash point that no code passes: the test would prove nothing."""


def nothing(_name: str) -> None:
    """The crash point of production."""


def crash_point(crash_at: str) -> CrashPoint:
    """The function to call at each named effect.

    Raises:
        UnknownCrashPointError: no such point, or not a count after the colon.
    """
    if not crash_at:
        return nothing
    wanted, _, times = crash_at.partition(":")
    if wanted not in CRASH_POINTS or (times and not times.isdigit()):
        message = f"no crash point {crash_at!r}; there are {', '.join(CRASH_POINTS)}"
        raise UnknownCrashPointError(message)
    left = int(times or "1")

    def pass_by(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left <= 0:
                os._exit(CRASH_STATUS)

    return pass_by
