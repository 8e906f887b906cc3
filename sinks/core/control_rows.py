"""Pure: records of every topic but usage.events to rows, in the column order of their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pydantic_core

from meterline.schemas.alert import AlertError, decode_alert
from meterline.schemas.audit import decode_audit
from meterline.schemas.codec import decode_usage
from meterline.schemas.dead_letter import DeadLetter, decode_dead_letter
from meterline.schemas.delivery import decode_delivery
from meterline.schemas.errors import MeterlineError
from meterline.schemas.reasons import RETRACTED
from meterline.schemas.scopes import UNASSIGNED, ScopeError, parse_scope
from meterline.schemas.spend import SnapshotError, SnapshotKey, Totals, decode_snapshot, sums_of
from meterline.schemas.tables import (
    ALERTS,
    AUDIT_LOG,
    DEAD_LETTERS,
    DELIVERIES,
    SPEND_WINDOWS,
    THROTTLE_ACKS,
    THROTTLE_COMMANDS,
    Table,
)
from meterline.schemas.throttle import ThrottleError, decode_ack, decode_command
from meterline.schemas.topics import Topic
from meterline.sinks.core.usage_rows import Block, RowIdentity, row_identity
from meterline.sinks.core.versions import Position, retraction_version, totals_version

Row: TypeAlias = tuple[Any, ...]


class RecordError(MeterlineError, ValueError):
    """A record that Meterline did not write; the message says what is wrong with it."""


class TopicPosition(NamedTuple):
    """Position of a record in its topic."""

    epoch: int
    offset: int

    @property
    def version(self) -> int:
        """The version that lets the last record of a key win."""
        return totals_version(self.epoch, self.offset)


def alert_row(value: bytes, source: TopicPosition) -> Row:
    """A row of alerts; AlertError if the record is no alert."""
    alert = decode_alert(value)
    return (
        alert.id,
        alert.dedup_key,
        alert.rule_id,
        alert.rule_type.value,
        alert.status.value,
        alert.severity.value,
        alert.scope,
        alert.window,
        alert.period,
        alert.threshold,
        alert.unit,
        alert.observed,
        alert.limit,
        alert.percent,
        alert.budget_version,
        list(alert.also_crossed),
        alert.summary,
        alert.starts_at_ms,
        alert.ends_at_ms,
        alert.reset_at_ms,
        list(alert.commands),
        source.version,
    )


def command_row(value: bytes, source: TopicPosition) -> Row:
    """A row of throttle_commands; ThrottleError if the record is no command."""
    command = decode_command(value)
    return (
        command.scope,
        command.epoch,
        command.seq,
        command.state.value,
        command.mode.value,
        command.admit_percent,
        command.limits.model_dump_json(exclude_none=True),
        command.fallback_model,
        command.reason,
        command.reason_code,
        command.http_status,
        command.evidence.model_dump_json() if command.evidence else "",
        command.issued_at_ms,
        command.expires_at_ms,
        command.reset_at_ms,
        command.on_expiry.value,
        command.degrade_percent,
        command.degrade_nano_usd_per_hour,
        command.issuer,
        source.version,
    )


def ack_row(value: bytes, source: TopicPosition) -> Row:
    """A row of throttle_acks; ThrottleError if the record is no acknowledgement."""
    ack = decode_ack(value)
    return (ack.relay, ack.scope, ack.epoch, ack.seq, ack.applied.value, ack.at_ms, source.version)


def audit_row(value: bytes, source: TopicPosition) -> Row:
    """A row of audit_log; pydantic's ValidationError if the record is no entry."""
    entry = decode_audit(value)
    return (
        entry.id,
        entry.at_ms,
        entry.actor,
        entry.action,
        entry.object_id,
        entry.reason,
        entry.before,
        entry.after,
        source.version,
    )


def delivery_row(value: bytes, source: TopicPosition) -> Row:
    """A row of deliveries; MsgspecError if the record is no delivery."""
    delivery = decode_delivery(value)
    return (
        delivery.message_id,
        delivery.channel,
        delivery.attempt,
        delivery.alert_id,
        delivery.dedup_key,
        delivery.at_ms,
        delivery.outcome.value,
        delivery.http_status,
        delivery.error,
        delivery.next_attempt_ms,
        delivery.duration_ms,
        source.version,
        [bytes(alert).decode() for alert in delivery.alerts],
        list(delivery.alert_ids),
        delivery.route,
        delivery.queue,
    )


class RowTopic(NamedTuple):
    """A topic in which one record is one row."""

    table: Table
    row: Callable[[bytes, TopicPosition], Row]


ROW_TOPICS: Mapping[Topic, RowTopic] = MappingProxyType(
    {
        Topic.ALERTS: RowTopic(ALERTS, alert_row),
        Topic.THROTTLE_COMMANDS: RowTopic(THROTTLE_COMMANDS, command_row),
        Topic.THROTTLE_ACKS: RowTopic(THROTTLE_ACKS, ack_row),
        Topic.AUDIT_LOG: RowTopic(AUDIT_LOG, audit_row),
        Topic.DELIVERIES: RowTopic(DELIVERIES, delivery_row),
    }
)


def record_row(topic: Topic, value: bytes | None, source: TopicPosition) -> Row | None:
    """The row of one record; None for a tombstone, which ends a state and deletes no history.

    Raises:
        RecordError: undecodable.
    """
    if value is None:
        return None
    try:
        return ROW_TOPICS[topic].row(value, source)
    except (
        AlertError,
        ThrottleError,
        pydantic_core.ValidationError,
        msgspec.MsgspecError,
    ) as error:
        message = f"not a record of {topic.value}: {_first_line(error)}"
        raise RecordError(message) from error


def rows_block(table: Table, rows: Sequence[Row]) -> Block:
    """The columns of a block of rows."""
    return Block(table.columns, list(zip(*rows, strict=True)), len(rows))


class SpendWindow(NamedTuple):
    """One snapshot of a spend window: its key, by which it is coalesced, and its totals."""

    key: SnapshotKey
    totals: Totals


def spend_window(key: bytes | None, value: bytes | None) -> SpendWindow | None:
    """Read one snapshot; None for the streams' bookkeeping and for tombstones (expired windows).

    Raises:
        RecordError: not a record of this topic.
    """
    try:
        snapshot = decode_snapshot(key, value)
        if snapshot is None or snapshot.totals is None:
            return None
        parse_scope(snapshot.key.scope)
    except (SnapshotError, ScopeError) as error:
        raise RecordError(_first_line(error)) from error
    return SpendWindow(snapshot.key, snapshot.totals)


def spend_block(windows: Sequence[SpendWindow]) -> Block:
    """The columns of many windows."""
    rows = [_spend_row(window.key, window.totals) for window in windows]
    return rows_block(SPEND_WINDOWS, rows)


def _spend_row(key: SnapshotKey, totals: Totals) -> Row:
    scope_type, _, rest = key.scope.partition(":")
    return (
        key.kind,
        key.start_ms,
        totals.end_ms,
        scope_type,
        rest.partition("/")[0],
        key.scope,
        key.shard,
        *sums_of(totals),
        totals.last_event_ms,
        totals.epoch,
        totals.offset,
        totals_version(totals.epoch, totals.offset),
    )


class DeadLetterRows(NamedTuple):
    """One dead letter: its row, and the rows of usage_events that it retracts."""

    row: Row
    retracted: tuple[RowIdentity, ...]
    unreadable: bool
    """It should retract rows, but its original does not identify them."""


def dead_letter(value: bytes | None, source: TopicPosition) -> DeadLetterRows | None:
    """Read one dead letter; None for a tombstone.

    Raises:
        RecordError: undecodable.
    """
    if value is None:
        return None
    try:
        letter = decode_dead_letter(value)
        original = letter.original()
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"not a dead letter: {_first_line(error)}"
        raise RecordError(message) from error
    row = (
        letter.topic,
        source.epoch,
        letter.partition,
        letter.offset,
        letter.index,
        letter.reason.value,
        letter.detail,
        letter.event_id,
        letter.lane,
        letter.seq,
        letter.timestamp_ms,
        original,
        source.version,
    )
    if letter.reason not in RETRACTED or letter.topic != Topic.USAGE_EVENTS.value:
        return DeadLetterRows(row, (), unreadable=False)
    retracted = _retracted(letter, original, source.epoch)
    return DeadLetterRows(row, retracted, unreadable=not retracted)


def _retracted(letter: DeadLetter, original: bytes, epoch: int) -> tuple[RowIdentity, ...]:
    message = decode_usage(original, letter.timestamp_ms)
    first = max(letter.index, 0)
    found = tuple(
        row_identity(
            event,
            letter.partition,
            retraction_version(Position(epoch, letter.offset, first + position)),
        )
        for event, position in zip(message.events, message.positions, strict=True)
    )
    return found or _retracted_from_part(letter, original, epoch)


_IDENTITY_FIELDS: Final = ("id", "time_ms", "organisation", "key", "department")


def _retracted_from_part(
    letter: DeadLetter, original: bytes, epoch: int
) -> tuple[RowIdentity, ...]:
    """An original that was cut: the fields of the sorting key come first in a relay's events."""
    try:
        part = pydantic_core.from_json(original, allow_partial=True)
    except ValueError:
        return ()
    if letter.index < 0 or not isinstance(part, dict) or not set(_IDENTITY_FIELDS) <= set(part):
        return ()
    event_id, time_ms, organisation, key, department = (part[name] for name in _IDENTITY_FIELDS)
    version = retraction_version(Position(epoch, letter.offset, letter.index))
    return (
        RowIdentity(
            event_id,
            time_ms,
            organisation,
            department or UNASSIGNED,
            key,
            letter.partition,
            version,
        ),
    )


def dead_letters_block(dead_letters: Sequence[DeadLetterRows]) -> Block:
    """The columns of many dead letters."""
    return rows_block(DEAD_LETTERS, [each.row for each in dead_letters])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
