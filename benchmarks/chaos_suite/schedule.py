"""The schedule of a chaos run: who is killed when and how. Pure: a seed gives the same schedule.

Every way to die is drawn from one bag without putting back, the victims in turn, so that a short
run hits every process once and a longer one every failpoint once, before anything repeats.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from meterline.app.settings import DEPRECATED_EMBEDDED, broker_name
from meterline.backends.failpoints import AlertingFailpoint, StreamsFailpoint


class RelayFailpoint(StrEnum):
    """Before and after each numbered effect of `relay.sender`, and of `relay.subscriber`.

    At the subscriber's two the gate has a command and nothing is acknowledged yet. `relay_faults`
    kills there. A schedule is drawn from them in this order.
    """

    BEFORE_SPOOL = "relay.before_spool"
    SPOOLED = "relay.spooled"
    BEFORE_SEND = "relay.before_send"
    SENT = "relay.sent"
    ACKNOWLEDGED = "relay.acknowledged"
    DROPPED = "relay.dropped"
    BEFORE_APPLY = "relay.before_apply"
    APPLIED = "relay.applied"


RELAY_POINTS = tuple(point.value for point in RelayFailpoint)
# `after_dead_letters` needs rows that ClickHouse refuses, which this load has none of; the sink's
# own functional test kills there.
SINK_POINTS = ("before_insert", "after_insert", "after_commit")
STREAMS_POINTS = tuple(point.value for point in StreamsFailpoint if point != "flush.before_letters")
PASSES_MAX = 12
"""A failpoint kills at its Nth hit, N drawn up to this: a second or two of the load."""
RARE_PASSES_MAX = 1
"""The same for what happens only now and then: dead letters, alerts, deliveries, commands."""
RARE_POINTS = {"flush.before_letters", "relay.before_apply", "relay.applied"}
PAUSE_SECONDS_MAX = 2.5
"""Between two strikes: long enough to recover at times, short enough to be hit while recovering."""


class Way(StrEnum):
    """How a process dies."""

    KILL = "kill"
    """SIGKILL at a random moment."""
    CRASH = "crash"
    """SIGKILL, then its successor kills itself at a named effect."""
    PAUSE = "pause"
    """SIGSTOP until its session has ended, then SIGCONT: a zombie."""


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """One death."""

    victim: str
    way: Way
    point: str = ""
    """NAME:N of a crash."""
    after_seconds: float
    """Pause before it."""
    settle: bool
    """Whether everything must be up again before the next strike."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle: one strike, or two in quick succession."""

    strikes: tuple[Strike, ...]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run; written down when it fails, and read again to repeat it."""

    seed: int
    kafka: str
    rounds: tuple[Round, ...]


Death = tuple[Way, str]


def ways_to_die(kafka: str) -> dict[str, list[Death]]:
    """Every victim with its ways; on Apache Kafka two streams workers share the partitions.

    The embedded broker keeps everything in memory, so it is never killed; and two members of one
    of its groups may rejoin indefinitely, so there is one streams worker.
    """
    kill: Death = (Way.KILL, "")
    streams: list[Death] = [
        kill,
        (Way.PAUSE, ""),
        *((Way.CRASH, point) for point in (*STREAMS_POINTS, "flush.before_letters")),
    ]
    alerts = [point.value for point in AlertingFailpoint if point.value.startswith("alerts.")]
    notify = [point.value for point in AlertingFailpoint if point.value.startswith("notify.")]
    ways: dict[str, list[Death]] = {
        "relay-1": [kill, *((Way.CRASH, point) for point in RELAY_POINTS[::2])],
        "relay-2": [kill, *((Way.CRASH, point) for point in RELAY_POINTS[1::2])],
        "sink": [kill, *((Way.CRASH, point) for point in SINK_POINTS)],
        "alerts": [kill, *((Way.CRASH, point) for point in alerts)],
        "notify": [kill, *((Way.CRASH, point) for point in notify)],
        "clickhouse": [kill],
    }
    if kafka == "apache":
        half = len(streams) // 2
        return {
            **ways,
            "streams-1": [kill, *streams[1:half]],
            "streams-2": [kill, *streams[half:]],
            "broker": [kill],
        }
    return {**ways, "streams": streams}


def make_schedule(*, cycles: int, seed: int, kafka: str) -> Schedule:
    """The schedule of a seed."""
    # The deprecated spelling stays in the seed's text, so that a seed repeats its older schedules.
    spelling = DEPRECATED_EMBEDDED if kafka == "embedded" else kafka
    draw = random.Random(f"{seed} {spelling}")
    deaths = _bag(draw, kafka)
    rounds = []
    for _ in range(cycles):
        count = draw.choice((1, 2))
        rounds.append(Round(strikes=tuple(_strike(draw, deaths) for _ in range(count))))
    return Schedule(seed=seed, kafka=kafka, rounds=tuple(rounds))


def _bag(draw: random.Random, kafka: str) -> Iterator[tuple[str, Death]]:
    """Deaths without end: all of them in turn of the victims, then all again."""
    while True:
        left = {victim: draw.sample(ways, len(ways)) for victim, ways in ways_to_die(kafka).items()}
        while left:
            for victim in draw.sample(sorted(left), len(left)):
                yield victim, left[victim].pop()
                if not left[victim]:
                    del left[victim]


def _strike(draw: random.Random, deaths: Iterator[tuple[str, Death]]) -> Strike:
    victim, (way, point) = next(deaths)
    if point:
        rare = victim in {"alerts", "notify"} or point in RARE_POINTS
        point = f"{point}:{draw.randint(1, RARE_PASSES_MAX if rare else PASSES_MAX)}"
    return Strike(
        victim=victim,
        way=way,
        point=point,
        after_seconds=round(draw.uniform(0.1, PAUSE_SECONDS_MAX), 2),
        settle=draw.random() < 0.5,
    )


def read_schedule(path: Path) -> Schedule:
    """A schedule written down by an earlier run.

    Raises:
        OSError, msgspec.MsgspecError: it cannot be read.
    """
    read = msgspec.json.decode(path.read_bytes(), type=Schedule)
    return msgspec.structs.replace(read, kafka=broker_name(read.kafka))


def schedule_text(schedule: Schedule) -> str:
    """As JSON, to be read again."""
    return msgspec.json.encode(schedule).decode()
