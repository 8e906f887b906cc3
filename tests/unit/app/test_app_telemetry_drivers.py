"""What the drivers may write to the logs."""

from __future__ import annotations

import logging

from meterline.app.telemetry import Sparse


def record(logger: str, message: str, created: float) -> logging.LogRecord:
    made = logging.LogRecord(logger, logging.ERROR, "", 0, message, None, None)
    made.created = created
    return made


def test_a_driver_that_repeats_itself_is_shown_once_in_ten_seconds() -> None:
    """A broker that is away fills no log, and is mentioned again while it stays away."""
    sparse = Sparse()
    shown = [
        sparse.filter(record(logger, "refused", created))
        for logger, created in (
            ("kafka.net.manager", 100.0),
            ("kafka.net.connection", 101.0),
            ("aiokafka", 101.0),
            ("kafka.net.manager", 111.0),
        )
    ]
    assert shown == [True, False, True, True]


def test_lines_of_meterline_always_pass() -> None:
    """Only records of drivers are dropped."""
    sparse = Sparse()
    assert all(sparse.filter(record("app", "said", 100.0)) for _ in range(3))


def test_a_cancelled_refresh_is_no_error() -> None:
    """Closing a client leaves no line behind."""
    assert not Sparse().filter(record("kafka.cluster", "Metadata refresh: failed Cancelled", 1.0))
