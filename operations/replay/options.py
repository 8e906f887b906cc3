"""Options, progress and result of a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Event

from meterline.schemas.errors import MeterlineError
from meterline.schemas.metrics import Meter, NoMeter
from meterline.schemas.usage import UsageEvent

RELAYS_MAX = 16
"""Each is an emitter with two threads and a spool in this process."""
KEYS_MAX = 100_000
DEPARTMENTS_MAX = 1_000
LATE_HOURS = 46
"""Hours that late events go back at most: with a day's clock change still below two days."""


class ReplayError(MeterlineError, RuntimeError):
    """A replay that cannot start or did not send everything; one line that says what to do."""


class TraceFormat(StrEnum):
    """The format of a trace."""

    AZURE = "azure"
    """CSV with TIMESTAMP, ContextTokens, GeneratedTokens."""
    CSV = "csv"
    """CSV with columns named by `columns`."""
    JSONL = "jsonl"
    """One usage event per line."""
    SYNTHETIC = "synthetic"
    """Generated to look like the Azure trace; needs no file."""


class TimeUnit(StrEnum):
    """The unit of a trace's times."""

    ISO = "iso"
    SECONDS = "s"
    MILLISECONDS = "ms"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """All options of a replay but its connections."""

    trace: Path | None = None
    format: TraceFormat = TraceFormat.AZURE
    columns: Mapping[str, str] = field(default_factory=dict)
    """`time`, `input` and `output` to the trace's own column names."""
    time_unit: TimeUnit = TimeUnit.ISO
    speed: float = 60.0
    """Trace seconds per second; 0 sends without pausing."""
    start_ms: int | None = None
    """Event times begin here and keep the trace's own distances (backfill). None: the event time
    is the time of sending, so that live budgets and windows see the traffic as it arrives."""
    relays: int = 3
    keys: int = 200
    departments: int = 8
    organisation: str = "acme"
    duplicates: float = 0.0
    """Share of events that are sent twice."""
    late: float = 0.0
    """Share of events whose time lies minutes to days back."""
    malformed: float = 0.0
    """Extra broken messages per event, straight to the topic; they count nowhere."""
    seed: int = 7
    limit: int = 0
    """Maximum number of rows to send; 0 for all."""
    time_zone: str = "UTC"
    """Billing time zone of the truth's windows; must equal the policy's."""
    run_id: str = ""
    """Prefix of all event ids. Empty makes a new one, so that a second replay of the same trace
    counts again; naming an earlier run re-sends its ids, which count as conflicts or duplicates."""
    spool_dir: Path | None = None
    """Directory of the emitters' spools; None: a temporary one, removed when all is delivered."""

    def faults(self) -> list[str]:
        """What is wrong with the options, one line each."""
        shares = {"--duplicates": self.duplicates, "--late": self.late, "malformed": self.malformed}
        checks = [
            (not 1 <= self.relays <= RELAYS_MAX, f"--relays: 1 to {RELAYS_MAX}"),
            (not 1 <= self.keys <= KEYS_MAX, f"--keys: 1 to {KEYS_MAX}"),
            (
                not 1 <= self.departments <= min(self.keys, DEPARTMENTS_MAX),
                f"--departments: 1 to {DEPARTMENTS_MAX}, and no more than keys",
            ),
            (self.speed < 0, "--speed: 0 (no pauses) or more"),
            (self.limit < 0, "--limit: 0 (all) or more"),
            (
                self.trace is None and self.format is not TraceFormat.SYNTHETIC,
                f"--format {self.format} needs a trace file",
            ),
            *(
                (not 0 <= share <= 1, f"{name}: a share from 0 to 1")
                for name, share in shares.items()
            ),
        ]
        return [text for wrong, text in checks if wrong]


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay."""

    sent: int
    """Distinct events accepted by an emitter."""
    total: int
    duplicates: int
    late: int
    refused: int
    """Requests the gate did not admit: never sent, not part of the truth."""
    elapsed_seconds: float
    behind_seconds: float
    """Seconds that sending lags behind the schedule."""
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of a replay."""

    run_id: str
    progress: ReplayProgress
    malformed: int
    started_ms: int
    ended_ms: int
    complete: bool
    """Whether the trace was sent to its end (a stop cuts it short)."""
    truth_written: Path | None = None


def _nothing(_progress: ReplayProgress) -> None:
    """No-op callback."""


def _admit(_event: UsageEvent) -> bool:
    """Admit everything."""
    return True


@dataclass(frozen=True, slots=True)
class ReplayHooks:
    """Callbacks of a replay: progress, stop, admission, metrics."""

    on_progress: Callable[[ReplayProgress], None] = _nothing
    stop: Event = field(default_factory=Event)
    admit: Callable[[UsageEvent], bool] = _admit
    """Called before each request, as a relay calls its gate; False: the request is not made."""
    meter: Meter = field(default_factory=NoMeter)
