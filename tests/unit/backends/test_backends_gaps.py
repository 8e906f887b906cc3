"""Which part of a fetch is taken when the broker left offsets out."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from meterline.backends.kafka.consuming import poll_driver
from meterline.backends.kafka.gaps import GapWatch


class Fetched(NamedTuple):
    """A record, as far as gaps concern it."""

    offset: int


class JoiningDriver:
    """The driver's part that `poll_driver` uses, of a member whose partition comes with the poll."""

    def __init__(self, group: str | None, committed: int | None, offsets: list[int]) -> None:
        self.config = {"group_id": group}
        self.sought: list[tuple[str, int]] = []
        self._committed = committed
        self._offsets = offsets

    def assignment(self) -> set[str]:
        return set()

    def poll(self, **_: object) -> dict[str, list[Fetched]]:
        return {"p": [Fetched(offset) for offset in self._offsets]}

    def committed(self, _partition: str, **_: object) -> int | None:
        return self._committed

    def beginning_offsets(self, partitions: list[str], **_: object) -> dict[str, int]:
        return dict.fromkeys(partitions, 3)

    def seek(self, partition: str, offset: int) -> None:
        self.sought.append((partition, offset))


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
    """An offset that was never appended does not hold up its partition indefinitely."""
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
    """When the missing offset came and another is missing, the patience starts again."""
    watch = GapWatch(patience_seconds=3600)
    assert watch.admitted("p", 5, [6, 8]) == 0
    assert watch.admitted("p", 5, [5, 6, 8]) == 2
    assert watch.admitted("p", 7, [7, 8]) == 2


@pytest.mark.parametrize(
    ("group", "committed", "offsets", "taken", "sought"),
    [
        ("g", 7, [7, 8], [7, 8], []),
        ("g", 7, [8, 9], [], [("p", 7)]),
        ("g", None, [4, 5], [], [("p", 3)]),
        (None, None, [3, 5], [3], [("p", 4)]),
    ],
)
def test_a_gap_in_front_of_the_first_record_is_seen(
    group: str | None,
    committed: int | None,
    offsets: list[int],
    taken: list[int],
    sought: list[tuple[str, int]],
) -> None:
    """A partition that comes within a poll is read from its committed or its first offset on."""
    driver: Any = JoiningDriver(group, committed, offsets)
    polled = poll_driver(driver, GapWatch(), 0.1, 10)
    assert [each.offset for each in polled["p"]] == taken
    assert driver.sought == sought
