"""Failpoints: a test's way to kill a process between two effects."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from meterline.backends.failpoints import (
    AlertingFailpoint,
    Failpoints,
    SinkFailpoint,
    StreamsFailpoint,
    UnknownFailpointError,
)

PROGRAM = """
from meterline.backends.failpoints import AlertingFailpoint, Failpoints
failpoints = Failpoints({crash_at!r}, AlertingFailpoint)
for number in range(3):
    print(number, flush=True)
    failpoints.hit(AlertingFailpoint.DELIVERED)
    failpoints.hit(AlertingFailpoint.ALERTS_SENT)
"""


@pytest.mark.parametrize(
    ("crash_at", "passes"),
    [("", 3), ("notify.delivered", 1), ("notify.delivered:2", 2), ("alerts.alerts_sent:3", 3)],
)
def test_dies_at_the_wanted_pass(crash_at: str, passes: int) -> None:
    """At the first hit of the armed name, or at the Nth, and at no other name."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(crash_at=crash_at)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(number) for number in range(passes)]
    assert done.returncode == (-signal.SIGKILL if crash_at else 0)


@pytest.mark.parametrize("names", [StreamsFailpoint, SinkFailpoint, AlertingFailpoint])
def test_unarmed_no_name_kills(names: type[StreamsFailpoint]) -> None:
    """Without a name no effect of any worker kills the process."""
    failpoints = Failpoints("", names)
    for name in names:
        assert not failpoints.is_armed(name)
        failpoints.hit(name)


@pytest.mark.parametrize("names", [StreamsFailpoint, SinkFailpoint, AlertingFailpoint])
def test_an_unknown_name_is_refused(names: type[StreamsFailpoint]) -> None:
    """A misspelt name or count would never be hit, and its test would prove nothing."""
    name = next(iter(names)).value
    for crash_at in ("before_lunch", f"{name}:soon", f"{name}:0", f"{name}:", f"x{name}"):
        with pytest.raises(UnknownFailpointError, match=crash_at):
            Failpoints(crash_at, names)


def test_no_two_failpoints_share_a_name() -> None:
    """METERLINE_CRASH_AT means one effect of one worker."""
    values = [
        each.value
        for names in (StreamsFailpoint, SinkFailpoint, AlertingFailpoint)
        for each in names
    ]
    assert len(values) == len(set(values))
