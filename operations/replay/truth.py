"""The truth of a replay: totals of what was sent, computed without the pipeline.

Rated by the same price catalogue and cut by the same calendar as the pipeline (they define what
the totals mean), but summed here, from the events the emitters accepted, each id once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from operator import add, attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

from meterline.pricing.catalogue import Catalogue
from meterline.reports.core.totals import Total
from meterline.schemas.errors import MeterlineError
from meterline.schemas.measures import COST, EVENTS, INPUT_TOKENS, OUTPUT_TOKENS
from meterline.schemas.periods import MINUTE_MS, Calendar, Window, WindowKind
from meterline.schemas.scopes import is_organisation, scopes_of
from meterline.schemas.spend import Totals
from meterline.schemas.usage import UsageEvent

FORMAT = 1
"""Version of the truth file."""


class TruthError(MeterlineError, ValueError):
    """A truth file that cannot be read."""


def event_id(run_id: str, number: int) -> str:
    """The id of a run's event; also how verification recognises the run's events."""
    return f"{run_id}-{number:07d}"


VERIFIED = (COST, INPUT_TOKENS, OUTPUT_TOKENS, EVENTS)
"""The measures that a truth file holds, in the order of its arrays."""
_verified: Any = attrgetter(*(each.name for each in VERIFIED))


class TruthSums(NamedTuple):
    """Totals of one scope and window: the measures of VERIFIED."""

    cost_nano_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    events: int = 0

    def plus(self, other: TruthSums) -> TruthSums:
        """Both together, measure by measure."""
        return TruthSums(*map(add, self, other))

    @classmethod
    def of(cls, totals: Totals | Total) -> TruthSums:
        """The verified measures among all that are stored."""
        return cls(*_verified(totals))


assert TruthSums._fields == tuple(each.name for each in VERIFIED), "a sum per measure of the file"


class WindowKey(NamedTuple):
    """One scope and window."""

    scope: str
    kind: WindowKind
    start_ms: int


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """A truth file, read."""

    format: int = FORMAT
    run_id: str
    seed: int
    organisations: tuple[str, ...]
    time_zone: str
    catalogue_version: str
    started_ms: int
    ended_ms: int
    complete: bool
    events: int
    """Distinct events."""
    unpriced: int
    duplicates: int
    late: int
    malformed: int
    invalid: int
    """Events of the trace that the pipeline must refuse; sent, but part of no total."""
    numbers: tuple[tuple[int, int], ...]
    """The ids are `run_id-NUMBER` of these inclusive ranges."""
    ids_xor: int
    """XOR of xxh64 of every id: equal sets of ids give equal values, in any order."""
    totals: dict[str, dict[WindowKind, dict[int, TruthSums]]]
    """By scope, window kind and window start in UTC ms."""

    def ids(self) -> set[str]:
        """Every distinct event id."""
        return {
            event_id(self.run_id, number)
            for first, last in self.numbers
            for number in range(first, last + 1)
        }

    def windows(self) -> Iterator[tuple[WindowKey, TruthSums]]:
        """Every scope and window."""
        for scope, kinds in self.totals.items():
            for kind, starts in kinds.items():
                for start_ms, sums in starts.items():
                    yield WindowKey(scope, kind, start_ms), sums


class TruthBuilder:
    """Adds up every distinct event that was accepted, once."""

    def __init__(self, catalogue: Catalogue, calendar: Calendar) -> None:
        """Rate by a catalogue and cut windows by a calendar, as the pipeline does."""
        self._catalogue = catalogue
        self._calendar = calendar
        # One row per identity and minute: five scopes and four windows each are unfolded at the
        # end, not per event.
        self._minutes: dict[tuple[tuple[str, ...], int], list[int]] = {}
        self._organisations: set[str] = set()
        self._ranges: list[list[int]] = []
        self._ids_xor = 0
        self.events = 0
        self.unpriced = 0
        self.cost_nano_usd = 0

    def add(self, event: UsageEvent, number: int) -> None:
        """Count one event; numbers rise."""
        rated = self._catalogue.rate(event)
        scopes = scopes_of(
            event.organisation, event.department, event.project, event.user, event.key
        )
        row = self._minutes.setdefault((scopes, event.time_ms // MINUTE_MS), [0, 0, 0, 0])
        row[0] += rated.cost_nano_usd
        row[1] += event.input_tokens
        row[2] += event.output_tokens
        row[3] += 1
        self._organisations.add(event.organisation)
        self._ids_xor ^= xxhash.xxh64_intdigest(event.id.encode())
        self.events += 1
        self.cost_nano_usd += rated.cost_nano_usd
        self.unpriced += not rated.priced
        if self._ranges and self._ranges[-1][1] == number - 1:
            self._ranges[-1][1] = number
        else:
            self._ranges.append([number, number])

    def totals(self) -> dict[str, dict[WindowKind, dict[int, TruthSums]]]:
        """Unfold to scopes and windows."""
        totals: dict[str, dict[WindowKind, dict[int, TruthSums]]] = {}
        for (scopes, minute), row in self._minutes.items():
            windows = self._calendar.windows(minute * MINUTE_MS)
            for scope in scopes:
                kinds = totals.setdefault(scope, {})
                for window in windows:
                    _add(kinds, window, TruthSums(*row))
        return totals

    def truth(self, run: RunFacts) -> Truth:
        """Build the truth of a run."""
        return Truth(
            **run._asdict(),
            organisations=tuple(sorted(self._organisations)),
            time_zone=self._calendar.time_zone,
            catalogue_version=self._catalogue.version,
            events=self.events,
            unpriced=self.unpriced,
            numbers=tuple((first, last) for first, last in self._ranges),
            ids_xor=self._ids_xor,
            totals=self.totals(),
        )


class RunFacts(NamedTuple):
    """What the sender counted in its run."""

    run_id: str
    seed: int
    started_ms: int
    ended_ms: int
    complete: bool
    duplicates: int
    late: int
    malformed: int
    invalid: int


def _add(kinds: dict[WindowKind, dict[int, TruthSums]], window: Window, sums: TruthSums) -> None:
    starts = kinds.setdefault(window.kind, {})
    starts[window.start_ms] = starts.get(window.start_ms, TruthSums()).plus(sums)


def write_truth(path: Path, truth: Truth) -> None:
    """Write the file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(truth))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises:
        TruthError: unreadable, not a truth file, or inconsistent in itself.
    """
    try:
        truth = msgspec.json.decode(path.read_bytes(), type=Truth)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = f"{path}: not a truth file of `meterline replay --truth`: {error}"
        raise TruthError(message) from error
    if truth.format != FORMAT:
        message = f"{path}: truth format {truth.format}, this version reads {FORMAT}"
        raise TruthError(message)
    counted = sum(last - first + 1 for first, last in truth.numbers)
    if counted != truth.events or _organisation_events(truth.totals) != truth.events:
        message = f"{path}: its totals do not add up to its {truth.events} events"
        raise TruthError(message)
    if _xor(truth.ids()) != truth.ids_xor:
        message = f"{path}: its event ids do not match their digest"
        raise TruthError(message)
    return truth


def _xor(ids: Iterable[str]) -> int:
    digest = 0
    for each in ids:
        digest ^= xxhash.xxh64_intdigest(each.encode())
    return digest


def _organisation_events(
    totals: Mapping[str, Mapping[WindowKind, Mapping[int, TruthSums]]],
) -> int:
    return sum(
        sums.events
        for scope, kinds in totals.items()
        if is_organisation(scope)
        for sums in kinds[WindowKind.MONTH].values()
    )
