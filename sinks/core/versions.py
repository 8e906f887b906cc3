"""Which row of one event wins: the version of a row, made of its position in the log.

ClickHouse keeps, per sorting key, the row with the greatest version. The streams count the first
occurrence of an event, so the version falls with the source position:

    position = epoch (10 bits) | offset (44 bits) | index (9 bits)          63 bits
    version  = 2 * (2**63 - 1 - position) + is_deleted                      64 bits

- Rows of one sorting key: the one with the lowest (epoch, offset, index) wins, in any order of
  arrival, however often each is inserted.
- The streams refuse a row after the sink stored it (conflict, restarted lane): the retraction has
  the refused row's version + 1 and is_deleted = 1. That is above the refused row and still below
  every earlier row, because versions of different positions differ by 2 at least. So it retracts
  the refused row, never an original before it, and may arrive before the row itself.
- A log that was lost starts again at offset 0 with a raised epoch: its positions are all later, so
  an event that is sent again in it loses to the stored row.
- A retraction also hides later rows of its own sorting key: streams that refuse an event of that
  identity at one position refuse it at all later ones (its id belongs to another body).

Limits: offsets below 2**44 (560 years of 1,000 messages a second in one partition), epochs below
1,024, 512 events a message.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from meterline.schemas.errors import MeterlineError
from meterline.schemas.usage import EVENTS_PER_BATCH_MAX

INDEX_BITS: Final = 9
OFFSET_BITS: Final = 44
EPOCH_BITS: Final = 10
EPOCH_MAX: Final = 2**EPOCH_BITS - 1
OFFSET_MAX: Final = 2**OFFSET_BITS - 1
POSITION_MAX: Final = 2 ** (INDEX_BITS + OFFSET_BITS + EPOCH_BITS) - 1
_TOTALS_OFFSET_BITS: Final = 48
_INVALIDATION_OFFSET_BITS: Final = 40

assert EVENTS_PER_BATCH_MAX <= 2**INDEX_BITS


class PositionError(MeterlineError, ValueError):
    """A position in the log that is beyond the bits of a version."""


class Position(NamedTuple):
    """Position of an event within its partition."""

    epoch: int
    offset: int
    event: int
    """Index of the event in its message."""


def first_version(epoch: int, offset: int) -> int:
    """The version of the event at index 0 of a message; each further index is 2 less.

    Raises:
        PositionError: beyond the limits; raise the epoch or clear the database.
    """
    if not (0 <= epoch <= EPOCH_MAX and 0 <= offset <= OFFSET_MAX):
        message = f"epoch {epoch}, offset {offset}: at most {EPOCH_MAX} and {OFFSET_MAX}"
        raise PositionError(message)
    position = (epoch << OFFSET_BITS | offset) << INDEX_BITS
    return 2 * (POSITION_MAX - position)


def row_version(position: Position) -> int:
    """The version of the row stored for an event."""
    return first_version(position.epoch, position.offset) - 2 * position.event


def retraction_version(position: Position) -> int:
    """The version of the row that retracts the event's row."""
    return row_version(position) + 1


def position_of(version: int) -> Position:
    """The position that a version was made of; a row and its retraction have the same."""
    position = POSITION_MAX - version // 2
    return Position(
        position >> (OFFSET_BITS + INDEX_BITS),
        (position >> INDEX_BITS) & OFFSET_MAX,
        position & (2**INDEX_BITS - 1),
    )


def totals_version(epoch: int, offset: int) -> int:
    """The version of a spend window: the newest (epoch, offset) wins; offset -1 is a bootstrap.

    Also the version of records of topics of which the last one of a key is valid.
    """
    return (epoch << _TOTALS_OFFSET_BITS) + offset + 1


def invalidation_version(epoch: int, offset: int) -> int:
    """The version of a roll-up invalidation; rises with (epoch, offset) of its shard.

    Offsets below 2**40 (35 years of 1,000 messages a second), so that the sum over 16,384 shards
    of any epoch still fits into 64 bits.
    """
    return (epoch << _INVALIDATION_OFFSET_BITS) + offset + 1
