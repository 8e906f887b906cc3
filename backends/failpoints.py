"""Failpoints: named effects of a worker at which a test makes the process kill itself.

Every worker has a closed list of names, in the order of its effects; METERLINE_CRASH_AT arms one of
them: `NAME` kills at the first hit, `NAME:N` at the N-th. The process dies as by `kill -9`:
nothing is flushed, closed or committed. Unarmed, a hit is one comparison.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Generic, TypeVar

from meterline.schemas.errors import MeterlineError


class StreamsFailpoint(StrEnum):
    """Effects of one flush of the streams."""

    BEFORE_DEAD_LETTERS = "flush.before_letters"
    BEFORE_ENTRIES = "flush.before_entries"
    PARTIAL_ENTRIES = "flush.amid_entries"
    """Half of the entries are written: a torn flush."""
    AFTER_ENTRIES = "flush.after_entries"
    AFTER_STATE = "flush.after_state"
    AFTER_ACK = "flush.after_ack"


class SinkFailpoint(StrEnum):
    """Effects of one batch of the sink."""

    BEFORE_INSERT = "before_insert"
    AFTER_INSERT = "after_insert"
    AFTER_DEAD_LETTERS = "after_dead_letters"
    AFTER_COMMIT = "after_commit"


class AlertingFailpoint(StrEnum):
    """Effects of the alerts worker and of the notify worker."""

    BEFORE_COMMANDS = "alerts.before_commands"
    COMMANDS_SENT = "alerts.commands_sent"
    """Handed to the driver, not acknowledged."""
    COMMANDS_DURABLE = "alerts.commands_durable"
    ALERTS_SENT = "alerts.alerts_sent"
    ALERTS_DURABLE = "alerts.alerts_durable"
    MESSAGE_DURABLE = "notify.message_durable"
    """A group's message is written down and not yet sent."""
    BEFORE_DELIVERY = "notify.before_delivery"
    DELIVERED = "notify.delivered"
    """The receiver has it, the delivery log does not."""
    DELIVERY_DURABLE = "notify.delivery_durable"


NameT = TypeVar("NameT", bound=StrEnum)


class UnknownFailpointError(MeterlineError, ValueError):
    """A failpoint that no code hits: the test would prove nothing."""


class Failpoints(Generic[NameT]):
    """The failpoints of one worker, at most one of them armed."""

    def __init__(self, crash_at: str, names: type[NameT]) -> None:
        """Arm one.

        Args:
            crash_at: `NAME` or `NAME:N` with N from 1; empty arms none.
            names: the worker's closed list.

        Raises:
            UnknownFailpointError: no such name, or no count after the colon.
        """
        self._left = 0
        self._armed: NameT | None = None
        if not crash_at:
            return
        name, colon, times = crash_at.partition(":")
        known = {each.value: each for each in names}
        counted = not colon or (times.isascii() and times.isdigit() and int(times) > 0)
        if name not in known or not counted:
            message = f"no failpoint {crash_at!r}; there are {', '.join(known)}"
            raise UnknownFailpointError(message)
        self._armed = known[name]
        self._left = int(times or 1)

    def is_armed(self, name: NameT) -> bool:
        """Whether this is the one: for effects that have to be made partial first."""
        return name is self._armed

    def hit(self, name: NameT) -> None:
        """Kill this process if a test asked for it at this hit of this name."""
        if name is not self._armed:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
