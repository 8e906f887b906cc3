"""Which part of a fetch is taken when the broker left offsets out."""

from __future__ import annotations

import pytest

from backends.kafka.gaps import GapWatch


@pytest.mark.parametrize(
    ("position", "offsets", "taken"),
    [
        (5, [5, 6, 7], 3),
        (5, [6, 7], 0),
        (5, [5, 6, 8, 9], 2),
        (5, [3, 4, 5, 6], 4),
        (5, [3, 4, 5, 7], 3),
        (5, [3, 4], 2),
    ],
)
def test_only_offsets_that_follow_the_position_are_taken(
    position: int, offsets: list[int], taken: int
) -> None:
    """What comes after a missing offset waits; what was read before may come again."""
    assert GapWatch().admitted("p", position, offsets) == taken


def test_a_gap_that_stays_is_accepted_at_last() -> None:
    """An offset that was never appended does not hold up its partition for ever."""
    watch = GapWatch(patience_seconds=0.0)
    assert watch.admitted("p", 5, [6, 7]) == 0
    assert watch.admitted("p", 5, [6, 7, 8]) == 3
    assert watch.admitted("p", 9, [9]) == 1


def test_each_partition_has_its_own_patience() -> None:
    """A gap in one partition says nothing of another's."""
    watch = GapWatch(patience_seconds=0.0)
    assert watch.admitted("p", 5, [6]) == 0
    assert watch.admitted("q", 5, [6]) == 0
    assert watch.admitted("p", 5, [6]) == 1


def test_a_second_gap_is_waited_for_as_long_as_the_first() -> None:
    """When the missing offset came and another is missing, the patience begins anew."""
    watch = GapWatch(patience_seconds=3600)
    assert watch.admitted("p", 5, [6, 8]) == 0
    assert watch.admitted("p", 5, [5, 6, 8]) == 2
    assert watch.admitted("p", 7, [7, 8]) == 2
