"""The journal of a relay: what it served, recorded before it reaches the emitter.

It plays the part of a gateway's request log. SIGKILL may take from the emitter what is not sealed
yet (50 ms of events); the relay's next process records the journal's tail again, under the same
ids, and the pipeline counts each once. The journals together are the truth of the run.

Every entry is one write to the operating system, so that it survives the process. A last line that
is not whole is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from meterline.operations.replay.truth import RunFacts, Truth, TruthBuilder
from meterline.pricing.catalogue import Catalogue
from meterline.schemas.periods import Calendar
from meterline.schemas.reasons import RejectReason
from meterline.schemas.usage import UsageEvent


class Kind(StrEnum):
    """What an entry is about."""

    EVENT = "event"
    """A request that counts."""
    INVALID = "invalid"
    """An event that the decoder must refuse, inside a batch."""
    BROKEN = "broken"
    """A message of its own that the decoder must refuse."""
    ACKNOWLEDGED = "acknowledged"
    """The broker has a broken message."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line."""

    kind: Kind
    at_ms: int = 0
    number: int = 0
    event: UsageEvent | None = None
    reason: RejectReason | None = None
    id: str = ""
    value: bytes | None = None


class Journal:
    """Appends; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open it, without a torn last line."""
        self.entries = read_journal(path)
        whole = sum(len(_line(entry)) for entry in self.entries)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, whole)

    def write(self, entry: Entry) -> None:
        """It survives the process when this returns."""
        os.write(self._fd, _line(entry))

    def close(self) -> None:
        """Let the file go."""
        os.close(self._fd)


def _line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def read_journal(path: Path) -> list[Entry]:
    """Every whole line."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=Entry) for line in lines if line.endswith(b"\n")]


def events_of(entries: Iterable[Entry]) -> Iterator[tuple[int, UsageEvent]]:
    """What counts, with its number."""
    for entry in entries:
        if entry.kind is Kind.EVENT:
            assert entry.event is not None
            yield entry.number, entry.event


def truth_of(
    entries: Iterable[Entry], facts: RunFacts, catalogue: Catalogue, calendar: Calendar
) -> Truth:
    """Add up what counts, each event once, without the pipeline."""
    builder = TruthBuilder(catalogue, calendar)
    for number, event in sorted(events_of(entries), key=lambda numbered: numbered[0]):
        builder.add(event, number)
    return builder.truth(facts)
