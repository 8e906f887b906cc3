"""Crash points of alerting: a test's way to die between two effects."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
from alerting.settings import CrashPoint, crash_if
for number in range(3):
    print(number, flush=True)
    crash_if({crash_at!r}, CrashPoint.DELIVERED)
    crash_if({crash_at!r}, CrashPoint.ALERTS_SENT)
"""


@pytest.mark.parametrize(
    ("crash_at", "passes"),
    [("", 3), ("notify.delivered", 1), ("notify.delivered:2", 2), ("alerts.alerts_sent:3", 3)],
)
def test_dies_at_the_wanted_pass(crash_at: str, passes: int) -> None:
    """At the first pass of the named point, or at the Nth, and at no other point."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(crash_at=crash_at)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(number) for number in range(passes)]
    assert done.returncode == (-signal.SIGKILL if crash_at else 0)
