"""Every private attribute of Faust, mode and aiokafka that Meterline touches, with its symptom.

faust-streaming is pinned for this file: each release is tried with `tests/unit/streams` and the
functional tests.

| patch             | what happens without it, faust-streaming 0.15.3 on aiokafka 0.14             |
|-------------------|------------------------------------------------------------------------------|
| set_fetch_wait    | Faust writes 1.5 s into the call: every quiet partition's messages that late |
| known_positions   | the public `position` waits for a partition that has none yet, and the fetch |
|                   | of all others waits with it                                                  |
| own_thread_loop   | a loop that is handed over is never closed: a leaked loop per restart        |
| set_recovery      | Faust makes its own recovery: 3,700 records a second instead of 210,000      |

Methods that Faust calls on its classes are overridden in `agents`, `recovery`, `tables` and
`transport`, with `@override`: mypy fails when Faust no longer has one of them.
"""

from __future__ import annotations

from typing import Any


def set_fetch_wait(consumer: Any, fetch_max_wait_ms: int) -> None:
    """How long a fetch may wait at the broker; before the consumer starts, which reads it.

    The call of the constructor is inside Faust, with 1,500 ms written into it.
    """
    consumer._fetch_max_wait_ms = fetch_max_wait_ms


def known_positions(consumer: Any) -> dict[Any, int]:
    """The next offset of each assigned partition that has one; the public way may wait for it."""
    subscription = consumer._subscription.subscription
    if subscription is None or subscription.assignment is None:
        return {}
    states = {
        each: subscription.assignment.state_value(each) for each in subscription.assignment.tps
    }
    return {each: state.position for each, state in states.items() if state.has_valid_position}


def own_thread_loop(thread: Any) -> None:
    """Let a consumer thread close the loop that it was given, as it closes one of its own making.

    mode leaves a loop that its caller gave to the caller, who has no way to learn when the thread
    has let go of it.
    """
    thread._close_thread_loop_on_stop = True


def set_recovery(tables: Any, recovery: Any) -> None:
    """Put a recovery in place of Faust's own, which is made on first use unless there is one."""
    tables._recovery = recovery
