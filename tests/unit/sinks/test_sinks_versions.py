"""Versions of rows."""

from itertools import pairwise

import pytest

from meterline.sinks.core.versions import (
    EPOCH_MAX,
    OFFSET_MAX,
    Position,
    PositionError,
    first_version,
    position_of,
    retraction_version,
    row_version,
    totals_version,
)

IN_ORDER = [
    Position(0, 0, 0),
    Position(0, 0, 499),
    Position(0, 1, 0),
    Position(0, OFFSET_MAX, 511),
    Position(1, 0, 0),
    Position(EPOCH_MAX, OFFSET_MAX, 511),
]


@pytest.mark.parametrize(("first", "second"), list(pairwise(IN_ORDER)))
def test_earlier_position_wins(first: Position, second: Position) -> None:
    """An earlier place in the log has the greater version, also than a retraction of a later one."""
    assert row_version(first) > retraction_version(second) > row_version(second)


@pytest.mark.parametrize("position", IN_ORDER)
def test_version_holds_its_position(position: Position) -> None:
    """A version fits into 64 bits and gives the position back, for rows and retractions."""
    assert 0 <= row_version(position) < retraction_version(position) < 2**64
    assert position_of(row_version(position)) == position
    assert position_of(retraction_version(position)) == position


@pytest.mark.parametrize(
    ("epoch", "offset"), [(EPOCH_MAX + 1, 0), (0, OFFSET_MAX + 1), (-1, 0), (0, -1)]
)
def test_position_beyond_limits_is_refused(epoch: int, offset: int) -> None:
    """A position that would run into another one's bits raises instead of being stored wrongly."""
    with pytest.raises(PositionError):
        first_version(epoch, offset)


def test_totals_newest_wins() -> None:
    """A spend window's version rises with epoch and offset, a bootstrap being the lowest."""
    assert totals_version(0, -1) == 0
    assert (
        totals_version(0, 5) < totals_version(0, 6) < totals_version(1, -1) < totals_version(1, 0)
    )
    assert totals_version(EPOCH_MAX, OFFSET_MAX) < 2**64
