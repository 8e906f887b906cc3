"""Closing a month: reads the store, takes the steps and writes the files.

    CloseError
    ├── CloseBusyError    another close runs here: wait for it
    └── ReopenError       the month is not closed, or no reason was given

Steps and what each guarantees:
    1  one closer       a lock on the directory: no other process writes runs or files
    2  CLOSING          the attempt is on record; a crash leaves lines that count for nothing
    3  lines            differences between events and what is booked, up to frozen positions
    4  checks           lag, drift, mapping, exchange; a reason sends the month back to OPEN
    5  FROZEN           inputs are on record; from here a crash is resumed with the same figures
    6  files            written aside, put in place at once
    7  CLOSED           manifest on record: from here the lines count and nothing changes
    8  audit entry      repeated with the same id if a crash came before it
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meterline.backends.clickhouse.client import Client
from meterline.pricing.catalogue import Catalogue
from meterline.reports.booking.booking_lines import (
    read_booked_sums,
    read_line_sums,
    read_month_sums,
    read_positions,
    read_scope_totals,
)
from meterline.reports.booking.core.booking import Booking
from meterline.reports.booking.core.currency import NO_EXCHANGE, Exchange, NoRateError, exchange_for
from meterline.reports.booking.core.inputs import (
    CostMapping,
    FrozenInputs,
    OriginInput,
    decode_inputs,
    digest,
    encode_inputs,
    mapping_of,
)
from meterline.reports.booking.core.ledger import (
    PeriodEntry,
    PeriodHistory,
    PeriodLedger,
    PeriodState,
)
from meterline.reports.booking.core.months import Month, month_before, month_named
from meterline.reports.booking.core.values import CloseRun, LineKind
from meterline.reports.booking.period_store import append_entry, read_ledger
from meterline.reports.close.core.checks import (
    Blocker,
    BlockerKind,
    check_drift,
    check_mapping,
    check_time,
)
from meterline.reports.close.files import directory_of, files_in_place, write_files
from meterline.reports.core.totals import StreamTotals
from meterline.reports.focus.core.prices import prices_of, tier_floors
from meterline.reports.focus.reader import read_models
from meterline.reports.totals_reader import read_stream_totals
from meterline.schemas.audit import AuditEntry
from meterline.schemas.errors import MeterlineError
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import PolicyObject
from meterline.schemas.scopes import ScopeType

LATE_MONTHS_MAX = 3
"""Closed months before the one being closed that are searched for late events. Usage is kept for
seven days in the log and a relay's spool is drained in hours; what comes later still is booked by
reopening its month."""
_SCOPES = (ScopeType.ORGANISATION, ScopeType.DEPARTMENT, ScopeType.PROJECT, ScopeType.KEY)


class CloseError(MeterlineError):
    """A month cannot be closed or reopened; the message says why."""


class CloseBusyError(CloseError):
    """Another close runs in this directory."""


class ReopenError(CloseError):
    """The month is not closed."""


class CloseOutcome(StrEnum):
    """How a close ended."""

    CLOSED = "closed"
    ALREADY = "already closed"
    DRAFT = "draft"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class CloseResult:
    """Outcome of a close."""

    period: str
    outcome: CloseOutcome
    revision: int
    blockers: tuple[Blocker, ...] = ()
    directory: Path | None = None
    manifest_sha256: str = ""


@dataclass(frozen=True, slots=True)
class CloseDependencies:
    """Clients, configuration and callbacks of a close."""

    client: Client
    root: Path
    """Directory of all closed months."""
    time_zone: str
    policies: Callable[[], Mapping[str, PolicyObject]]
    lag: Callable[[], Sequence[str]]
    """Consumer groups that lag behind, one sentence each; empty without lag."""
    audit: Callable[[AuditEntry], None]
    """Writes an entry durably; a repeated one has the same id."""
    contracted: Catalogue
    listed: Catalogue
    on_step: Callable[[str], None]
    """Called with the name of each step before it."""


def close_month(
    dependencies: CloseDependencies,
    period: str,
    now_ms: int,
    *,
    actor: str,
    dry_run: bool = False,
    early: bool = False,
) -> CloseResult:
    """Close a month, resume a close that was killed, or repeat the files of a closed one.

    Args:
        dependencies: clients, clock and callbacks.
        period: such as 2026-10, in the billing time zone.
        now_ms: becomes the time of the close.
        actor: who closes.
        dry_run: write files marked as draft despite all blockers; nothing is booked.
        early: do not wait for the cut-off.

    Raises:
        PeriodError: no month.
        CloseBusyError: another close runs.
        FilesError, JournalError, ClickHouseError, OSError: the step failed; run it again.
    """
    month = month_named(period, dependencies.time_zone)
    # 1. One closer.
    with _locked(dependencies.root):
        ledger = read_ledger(dependencies.client)
        history = ledger.history(period)
        if not dry_run:
            if history.state is PeriodState.CLOSED:
                return _repeat(dependencies, history)
            if history.state is PeriodState.FROZEN and history.last is not None:
                return _finish(dependencies, history, decode_inputs(history.last.inputs), actor)
        return _Attempt(dependencies, month, ledger, now_ms, actor).run(
            dry_run=dry_run, early=early
        )


class _Attempt:
    """One new attempt to close a month."""

    def __init__(
        self,
        dependencies: CloseDependencies,
        month: Month,
        ledger: PeriodLedger,
        now_ms: int,
        actor: str,
    ) -> None:
        self._dependencies = dependencies
        self._month = month
        self._ledger = ledger
        self._history = ledger.history(month.name)
        self._now_ms = now_ms
        self._actor = actor
        self._mapping: CostMapping = mapping_of(dependencies.policies())
        self._revision = len(self._history.closed) + 1
        last = self._history.last
        # Two attempts within a millisecond still differ.
        self._run = max(now_ms, last.run + 1 if last is not None else 0)

    def run(self, *, dry_run: bool, early: bool) -> CloseResult:
        blockers = check_time(
            self._month, self._mapping, self._dependencies.time_zone, self._now_ms, early=early
        )
        blockers += [Blocker(BlockerKind.LAG, each) for each in self._dependencies.lag()]
        if blockers and not dry_run:
            return self._refused(blockers)
        # 2. On record.
        if not dry_run:
            self._step("closing")
            self._append(PeriodState.CLOSING)
        # 3. The lines.
        self._step("lines")
        origins = self._book(draft=dry_run)
        # 4. Checks that need the lines.
        self._step("checks")
        exchange, found = self._check()
        blockers += found
        if blockers and not dry_run:
            return self._refused(blockers)
        inputs = self._inputs(origins, exchange, draft=dry_run)
        if dry_run:
            self._step("files")
            manifest = write_files(
                self._dependencies.client,
                inputs,
                earlier_inputs(self._history),
                self._dependencies.root,
            )
            return CloseResult(
                self._month.name,
                CloseOutcome.DRAFT,
                self._revision,
                tuple(blockers),
                directory_of(self._dependencies.root, inputs),
                digest(manifest),
            )
        # 5. Frozen.
        self._step("frozen")
        self._append(PeriodState.FROZEN, inputs=encode_inputs(inputs).decode())
        return _finish(self._dependencies, self._history, inputs, self._actor)

    def _book(self, *, draft: bool) -> list[OriginInput]:
        """Write the lines of this month and of earlier closed ones that have changed."""
        closed_runs = self._ledger.closed_runs()
        kind = LineKind.RESTATEMENT if self._history.closed else LineKind.USAGE
        origins = [(kind, self._month)]
        earlier = self._month
        for _ in range(LATE_MONTHS_MAX):
            earlier = month_before(earlier, self._dependencies.time_zone)
            if self._ledger.history(earlier.name).state is PeriodState.CLOSED:
                now = read_month_sums(self._dependencies.client, earlier)
                if now != read_booked_sums(self._dependencies.client, earlier.name, closed_runs):
                    origins.append((LineKind.LATE, earlier))
        booked: list[OriginInput] = []
        for why, origin in origins:
            positions = read_positions(self._dependencies.client, origin)
            statement = Booking(
                CloseRun(self._run, self._month.name, draft),
                why,
                origin,
                positions,
                closed_runs,
                self._dependencies.time_zone,
                tier_floors(self._dependencies.contracted),
                self._mapping.finance.tag_keys,
            )
            self._dependencies.client.command(*statement.build())
            named = {str(partition): limit for partition, limit in positions.items()}
            booked.append(OriginInput(origin.name, origin.start_ms, origin.end_ms, named))
        return booked

    def _check(self) -> tuple[Exchange, list[Blocker]]:
        client, month = self._dependencies.client, self._month
        blockers: list[Blocker] = []
        rows = read_line_sums(client, [self._run])
        if not rows and not self._history.closed:
            blockers.append(Blocker(BlockerKind.NOTHING, f"{month.name} has no events"))
        blockers += check_mapping(rows, self._mapping)
        streams = read_stream_totals(
            client, StreamTotals(WindowKind.MONTH, month.start_ms, month.end_ms, _SCOPES)
        )
        runs = [*self._ledger.closed_runs(), self._run]
        blockers += check_drift(
            {key.scope: total for key, total in streams.items()},
            read_scope_totals(client, runs, month.name),
        )
        exchange = NO_EXCHANGE
        try:
            exchange = exchange_for(self._mapping.finance, month.last_day)
        except NoRateError as error:
            blockers.append(Blocker(BlockerKind.EXCHANGE, str(error)))
        return exchange, blockers

    def _inputs(
        self, origins: list[OriginInput], exchange: Exchange, *, draft: bool
    ) -> FrozenInputs:
        dependencies, month, mapping = self._dependencies, self._month, self._mapping
        models = read_models(dependencies.client, self._run, dependencies.time_zone)
        return FrozenInputs(
            period=month.name,
            time_zone=dependencies.time_zone,
            start_ms=month.start_ms,
            end_ms=month.end_ms,
            run=self._run,
            revision=self._revision,
            draft=draft,
            closed_at_ms=self._now_ms,
            price_version=dependencies.contracted.version,
            exchange=exchange,
            finance=mapping.finance.model_dump(mode="json"),
            organisations=mapping.organisations,
            departments=mapping.departments,
            origins=origins,
            booked_runs=[each.run for each in self._history.closed],
            prices=prices_of(models, dependencies.contracted, dependencies.listed),
        )

    def _refused(self, blockers: Sequence[Blocker]) -> CloseResult:
        reason = "; ".join(map(str, blockers))
        last = self._history.last
        # The same refusal twice in a row is recorded once.
        back = PeriodState.REOPENED if self._history.closed else PeriodState.OPEN
        if last is None or last.state is not back or last.reason != reason:
            self._append(back, reason=reason)
        return CloseResult(self._month.name, CloseOutcome.REFUSED, self._revision, tuple(blockers))

    def _append(self, state: PeriodState, *, reason: str = "", inputs: str = "") -> None:
        entry = self._history.next(
            state,
            revision=self._revision,
            run=self._run,
            at_ms=self._now_ms,
            actor=self._actor,
            reason=reason,
            inputs=inputs,
        )
        append_entry(self._dependencies.client, entry)
        self._history = PeriodHistory(self._month.name, (*self._history.entries, entry))

    def _step(self, name: str) -> None:
        self._dependencies.on_step(name)


def _finish(
    dependencies: CloseDependencies, history: PeriodHistory, inputs: FrozenInputs, actor: str
) -> CloseResult:
    """From FROZEN to CLOSED; the same in a resumed close."""
    # 6. Files.
    dependencies.on_step("files")
    manifest = write_files(dependencies.client, inputs, earlier_inputs(history), dependencies.root)
    # 7. Closed.
    dependencies.on_step("closed")
    entry = history.next(
        PeriodState.CLOSED,
        revision=inputs.revision,
        run=inputs.run,
        at_ms=inputs.closed_at_ms,
        actor=actor,
        inputs=encode_inputs(inputs).decode(),
        manifest=manifest.decode(),
    )
    append_entry(dependencies.client, entry)
    # 8. The audit log says what happened, and what files it made.
    dependencies.on_step("audit")
    dependencies.audit(_audit_entry(entry, "period.closed", digest(manifest)))
    return _result(dependencies, entry, inputs, CloseOutcome.CLOSED)


def _repeat(dependencies: CloseDependencies, history: PeriodHistory) -> CloseResult:
    """Verify the files of a closed month; if any is missing or changed, write the same bytes again."""
    entry = history.closed[-1]
    inputs = decode_inputs(entry.inputs)
    recorded = entry.manifest.encode()
    if not files_in_place(directory_of(dependencies.root, inputs), recorded):
        dependencies.on_step("files")
        manifest = write_files(
            dependencies.client, inputs, earlier_inputs(history, inputs.revision), dependencies.root
        )
        if manifest != recorded:
            message = (
                f"{history.period}: the repeated files are not those that were closed: restore "
                f"them from a backup, or repeat the close with the version of Meterline that "
                f"closed it"
            )
            raise CloseError(message)
    # The entry may have been lost with the process that closed the month.
    dependencies.audit(_audit_entry(entry, "period.closed", digest(recorded)))
    return _result(dependencies, entry, inputs, CloseOutcome.ALREADY)


def _result(
    dependencies: CloseDependencies, entry: PeriodEntry, inputs: FrozenInputs, outcome: CloseOutcome
) -> CloseResult:
    return CloseResult(
        entry.period,
        outcome,
        entry.revision,
        (),
        directory_of(dependencies.root, inputs),
        digest(entry.manifest.encode()),
    )


def earlier_inputs(history: PeriodHistory, before: int | None = None) -> list[FrozenInputs]:
    """Inputs of the closed revisions of a month, those before a revision or all."""
    return [
        decode_inputs(each.inputs)
        for each in history.closed
        if before is None or each.revision < before
    ]


def reopen_month(
    dependencies: CloseDependencies, period: str, now_ms: int, *, actor: str, reason: str
) -> PeriodEntry:
    """Let a closed month be closed again, as a revision that books the differences.

    Raises:
        ReopenError: it is not closed, or the reason is empty.
        PeriodError, CloseBusyError, ClickHouseError: as in `close_month`.
    """
    month_named(period, dependencies.time_zone)
    if not reason.strip():
        message = "say why the month is reopened: --reason '...'"
        raise ReopenError(message)
    with _locked(dependencies.root):
        history = read_ledger(dependencies.client).history(period)
        if history.state is not PeriodState.CLOSED:
            message = f"{period} is {history.state.value}: only a closed month can be reopened"
            raise ReopenError(message)
        last = history.closed[-1]
        entry = history.next(
            PeriodState.REOPENED,
            revision=last.revision + 1,
            run=last.run,
            at_ms=now_ms,
            actor=actor,
            reason=reason.strip(),
        )
        append_entry(dependencies.client, entry)
        dependencies.audit(_audit_entry(entry, "period.reopened", ""))
        return entry


def _audit_entry(entry: PeriodEntry, action: str, manifest_sha256: str) -> AuditEntry:
    what = f"revision {entry.revision}"
    after = f'{{"revision":{entry.revision},"manifest_sha256":"{manifest_sha256}"}}'
    identity = f"{action}\0{entry.period}\0{entry.seq}\0{entry.at_ms}"
    return AuditEntry(
        id=digest(identity.encode())[:32],
        at_ms=entry.at_ms,
        actor=entry.actor,
        action=action,
        object_id=f"period:{entry.period}",
        reason=entry.reason or what,
        after=after if manifest_sha256 else "",
    )


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel frees it when the process dies."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another close runs in {root}: wait for it to end"
            raise CloseBusyError(message) from None
        yield
