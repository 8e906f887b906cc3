"""Fixed seeds of the simulator; `make sim` plays others until stopped."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import play_some
from tests.simulation.world import World, small_ring

SEEDS_PER_TEST = 40


@pytest.mark.parametrize("block", range(6))
def test_no_schedule_breaks_a_promise(block: int) -> None:
    """Totals, alerts, commands and gates are right after every schedule of these seeds."""
    tally = play_some(block * SEEDS_PER_TEST, SEEDS_PER_TEST)
    assert tally.failure is None, f"make sim SCHEDULE={tally.failure[0]}: {tally.failure[1]}"
    assert tally.schedules == SEEDS_PER_TEST
    assert tally.events > SEEDS_PER_TEST, "schedules without events prove nothing"
    assert tally.commands > SEEDS_PER_TEST / 4, "schedules without commands prove little"


def test_a_seed_is_the_whole_schedule() -> None:
    """The same seed gives the same trace, line by line: a failure can be examined again."""
    traces: list[list[str]] = []
    for _ in range(2):
        lines: list[str] = []
        with small_ring():
            World(12, lines.append).run()
        traces.append(lines)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 20


def test_the_schedules_meet_every_kind_of_trouble() -> None:
    """Each kind of action comes up in some dozens of seeds: none is drawn away by its weight."""
    seen: set[str] = set()
    for seed in range(40):
        with small_ring():
            World(seed, lambda line: seen.add(line.split()[1])).run()
    assert {name.removeprefix("do_") for name in dir(World) if name.startswith("do_")} == seen
