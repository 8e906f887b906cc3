"""Re-rating: adjustments instead of edits.

    RerateError    no reason, or a cost that no column holds

Steps and what each guarantees:
    1  measure     every settled event of the period is priced; nothing is written
    2  audit       who, why, how much: no adjustment without an entry
    3  adjust      rows that say what an event is charged now; a crash leaves a part of them, and
                   the same command continues with the rest, because only what differs is written

Attribution and the close add the differences up. A month that is closed gets them as lines of the
next month that is closed, or of a revision; its booked lines stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.pricing.catalogue import Catalogue
from meterline.reports.attribution.core.period import ReportPeriod
from meterline.reports.core.query import Query
from meterline.reports.repricing.core.charged_usage import CHARGED_EVENTS
from meterline.reports.repricing.core.scenario import Request, event_of
from meterline.reports.repricing.core.slices import EventSlice
from meterline.reports.repricing.slices import read_event_slices
from meterline.schemas.audit import AuditEntry
from meterline.schemas.errors import MeterlineError
from meterline.schemas.money import NanoUsd, nano_from_usd, usd_text
from meterline.schemas.tables import NANO_USD_LIMIT, PRICE_ADJUSTMENTS

SETTLED_MS = 10 * 60_000
"""Events received less than this ago are left to the next run: the streams may still retract one
seconds after it was received; ten minutes cover a restart of theirs."""
ROWS_PER_INSERT = 20_000
"""Some 10 MB."""

_COPIED = tuple(
    column.name
    for column in PRICE_ADJUSTMENTS.columns
    if column.name
    not in {
        "event_time", "charged_usd", "difference_usd", "newly_priced", "price_version", "reason", "run"
    }
)  # fmt: skip
_COLUMNS = [InsertColumn(*column) for column in PRICE_ADJUSTMENTS.columns]


class RerateError(MeterlineError):
    """Events cannot be re-rated; the message says why."""


class RerateGroup(NamedTuple):
    """A department's usage of one model."""

    organisation: str
    department: str
    model: str


@dataclass(slots=True)
class RerateChange:
    """Number of re-rated events, and the difference of their cost."""

    events: int = 0
    newly_priced: int = 0
    difference_nano_usd: NanoUsd = 0
    """To what they are charged now."""


@dataclass(slots=True)
class Rerating:
    """What a re-rating does, or would do."""

    period: ReportPeriod
    price_version: str
    seen: int = 0
    unsettled: int = 0
    """Received too recently; left out."""
    without_price: int = 0
    """The catalogue has no price; they stay as they are."""
    groups: dict[RerateGroup, RerateChange] = field(default_factory=dict)

    @property
    def total(self) -> RerateChange:
        """All groups."""
        each = self.groups.values()
        return RerateChange(
            sum(one.events for one in each),
            sum(one.newly_priced for one in each),
            sum(one.difference_nano_usd for one in each),
        )


@dataclass(frozen=True, slots=True)
class RerateDependencies:
    """Clients and callbacks of a re-rating."""

    reader: Client
    writer: Client
    """A second connection: rows are written while others are read."""
    audit: Callable[[AuditEntry], None]
    """Writes an entry durably."""


class RerateReason(NamedTuple):
    """Who re-rates, when and why."""

    actor: str
    reason: str
    now_ms: int


def rerate(
    dependencies: RerateDependencies,
    catalogue: Catalogue,
    period: ReportPeriod,
    why: RerateReason,
    *,
    dry_run: bool = False,
) -> Rerating:
    """Charge the events of a period by a catalogue, by adjustments.

    Args:
        dependencies: clients, clock and callbacks.
        catalogue: whose prices hold from now on.
        period: of the events.
        why: goes to the audit log, and the reason onto every adjustment.
        dry_run: compute the changes and write nothing.

    Raises:
        RerateError: no reason was given, or a cost is beyond what an event may cost.
        ClickHouseError: the store failed or refused; running the command again continues it.
    """
    if not why.reason.strip():
        message = "say why the usage is re-rated: --reason '...'"
        raise RerateError(message)
    # 1. Measure.
    found = Rerating(period, catalogue.version)
    slices = read_event_slices(dependencies.reader, period)
    for piece in slices:
        for change in _changes(dependencies.reader, catalogue, piece, why.now_ms, found):
            _count(found, change)
    if dry_run or not found.groups:
        return found
    # 2. Audit.
    dependencies.audit(_entry(found, why))
    # 3. Adjust.
    for piece in slices:
        rows: list[tuple[Any, ...]] = []
        for change in _changes(
            dependencies.reader, catalogue, piece, why.now_ms, Rerating(period, catalogue.version)
        ):
            rows.append(_row(change, catalogue.version, why))
            if len(rows) >= ROWS_PER_INSERT:
                _insert(dependencies.writer, rows)
                rows = []
        _insert(dependencies.writer, rows)
    return found


class _Change(NamedTuple):
    time_ms: int
    copied: tuple[Any, ...]
    """By _COPIED."""
    charged_nano_usd: NanoUsd
    frozen_nano_usd: NanoUsd
    new_nano_usd: NanoUsd
    newly_priced: bool
    """It has no price on the event."""
    priced_now: bool
    """Not even an earlier re-rating gave it one."""


_REQUEST = tuple(name for name in Request._fields[1:] if name not in _COPIED)


def _question(piece: EventSlice) -> Query:
    columns = ", ".join([*_COPIED, *_REQUEST])
    sql = f"""
SELECT toUnixTimestamp64Milli(event_time), {columns},
       toString(cost_usd), toString(frozen_usd), priced, frozen_priced,
       toUnixTimestamp64Milli(event_time) + received_delay_ms
FROM {CHARGED_EVENTS}"""  # noqa: S608 - only fixed text is put in; values are bound
    return Query(sql, {**piece._asdict()})


def _changes(
    client: Client, catalogue: Catalogue, piece: EventSlice, now_ms: int, found: Rerating
) -> Iterator[_Change]:
    """Settled events that the catalogue charges otherwise than they are charged now."""
    names = [*_COPIED, *_REQUEST]
    places = [names.index(name) for name in Request._fields[1:]]
    for block in client.blocks(*_question(piece)):
        for row in zip(*block, strict=True):
            found.seen += 1
            charged, frozen, priced, frozen_priced, received_ms = row[-5:]
            if received_ms > now_ms - SETTLED_MS:
                found.unsettled += 1
                continue
            values = row[1:]
            request = Request._make((row[0], *(values[place] for place in places)))
            new, known = catalogue.price(event_of(request))
            if not known:
                found.without_price += 1
                continue
            if abs(new) >= NANO_USD_LIMIT:
                message = f"event {values[0]} would cost {usd_text(new)}: check the prices"
                raise RerateError(message)
            now = nano_from_usd(charged)
            if new != now or not priced:
                yield _Change(
                    row[0],
                    tuple(values[: len(_COPIED)]),
                    now,
                    nano_from_usd(frozen),
                    new,
                    not frozen_priced,
                    not priced,
                )


def _count(found: Rerating, change: _Change) -> None:
    named = dict(zip(_COPIED, change.copied, strict=True))
    group = RerateGroup(named["organisation"], named["department"], named["model"])
    changed = found.groups.setdefault(group, RerateChange())
    changed.events += 1
    changed.newly_priced += change.priced_now
    changed.difference_nano_usd += change.new_nano_usd - change.charged_nano_usd


def _row(change: _Change, version: str, why: RerateReason) -> tuple[Any, ...]:
    values = dict(zip(_COPIED, change.copied, strict=True))
    values |= {
        "event_time": change.time_ms,
        "charged_usd": change.new_nano_usd,
        "difference_usd": change.new_nano_usd - change.frozen_nano_usd,
        "newly_priced": int(change.newly_priced),
        "price_version": version,
        "reason": why.reason.strip(),
        "run": why.now_ms,
    }
    return tuple(values[column.name] for column in _COLUMNS)


def _insert(client: Client, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        data = [list(column) for column in zip(*rows, strict=True)]
        client.insert(PRICE_ADJUSTMENTS.name, _COLUMNS, data)


def _entry(found: Rerating, why: RerateReason) -> AuditEntry:
    total = found.total
    identity = f"usage.rerated\0{found.period.name}\0{found.price_version}\0{why.now_ms}"
    return AuditEntry(
        id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        at_ms=why.now_ms,
        actor=why.actor,
        action="usage.rerated",
        object_id=f"usage:{found.period.name}",
        reason=why.reason.strip(),
        after=json.dumps(
            {
                "run": why.now_ms,
                "price_version": found.price_version,
                "events": total.events,
                "newly_priced": total.newly_priced,
                "difference_usd": usd_text(total.difference_nano_usd),
            }
        ),
    )
