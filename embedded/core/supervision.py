"""The words of supervision: what a worker is, how it is doing, when it is started again.

Values and pure functions; `embedded.supervisor` carries them out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ProcessStatus(StrEnum):
    """A worker's phase."""

    WAITING = "waiting"
    """Not started yet: workers of a lower order come first."""
    STARTING = "starting"
    """Its process runs, it is not ready yet."""
    RUNNING = "running"
    """Its process runs and it is ready."""
    BACKOFF = "backoff"
    """It ended by itself and is started again after a pause."""
    STOPPING = "stopping"
    """It was asked to end."""
    STOPPED = "stopped"
    """It ended because it was asked to."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One worker process."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the supervisor's own environment; may hold secrets, so no repr shows it."""
    order: int = 0
    """Lower starts first and stops last; equal orders start and stop together."""
    ready: Callable[[], bool] | None = None
    """Says whether the worker works; without it, it does as soon as it runs. It is called from a
    thread of the supervisor and should answer within a second."""
    ready_timeout_seconds: float = 30.0
    stop_grace_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A worker as it is now."""

    name: str
    pid: int | None
    status: ProcessStatus
    restarts: int
    """How often it was started again, for whatever reason."""
    since_ms: int
    """Since when it has this status, UTC milliseconds."""
    rss_bytes: int | None
    exit_status: int | None
    """How the last process ended; negative: the signal."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that ends by itself is started again."""

    backoff_first_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    """Doubling stops here: a worker waits at most this long for a repaired cause."""
    healthy_seconds: float = 30.0
    """A worker that ran this long starts again with the first backoff."""
    start_failures_max: int = 3
    """While the supervisor starts: this many ends in a row make the start fail."""


def backoff_seconds(policy: RestartPolicy, failures: int) -> float:
    """The pause before the next start, after `failures` (>= 1) ends in a row."""
    # The exponent is bounded so that a week of failures does not overflow a float.
    doubled = policy.backoff_first_seconds * 2.0 ** min(failures - 1, 32)
    return min(doubled, policy.backoff_max_seconds)
