"""A labelled corpus of spend: keys of five kinds, incidents of four kinds, from a seed.

    production   day and night, with a swing and a quieter weekend
    office       nine to six on working days
    development  sessions: some hours of some days, of very different size
    batch        two hours every night
    sparse       an hour now and then

    runaway      a loop: 2 to 6 hours at many times the usual pace
    step         two days at two to three times more
    leak         grows from nothing to three times more over five days
    theft        three nights of a thief's work

Amounts are integers of nano-USD per slot of five minutes. Every key has one incident of each kind,
in random order, the first after ten quiet days and twelve days apart; an incident adds at least a few dollars an hour, because
no operator acts on what costs less.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("production", "office", "development", "batch", "sparse")
INCIDENTS = ("runaway", "step", "leak", "theft")
SLOT_SECONDS = 300
SLOTS_PER_HOUR = 12
SLOTS_PER_DAY = 288
QUIET_DAYS = 10
DAYS_PER_INCIDENT = 12
DAYS = QUIET_DAYS + DAYS_PER_INCIDENT * len(INCIDENTS)
NANO = 1_000_000_000


@dataclass(frozen=True)
class Incident:
    """What went wrong, in slots `[first, end)`."""

    kind: str
    first: int
    end: int


@dataclass
class Series:
    """One key's spend."""

    name: str
    kind: str
    amounts: list[int]
    """Nano-USD per slot."""
    incidents: list[Incident] = field(default_factory=list)

    def usual_per_day(self) -> int:
        """Nano-USD of an average day before the first incident."""
        return sum(self.amounts[: QUIET_DAYS * SLOTS_PER_DAY]) // QUIET_DAYS


def corpus(seed: int, keys_per_kind: int) -> list[Series]:
    """The keys of one seed."""
    return [
        _series(random.Random(f"{seed}/{kind}/{number}"), f"{kind}-{seed}-{number}", kind)
        for kind in KINDS
        for number in range(keys_per_kind)
    ]


def _series(rng: random.Random, name: str, kind: str) -> Series:
    scale = math.exp(rng.uniform(math.log(0.5), math.log(3)))
    amounts: list[int] = []
    drift = 0.0
    for hour in range(DAYS * 24):
        # A slow drift that returns, as real load has.
        drift = 0.97 * drift + rng.gauss(0, 0.03)
        usd = scale * math.exp(drift) * _hour_usd(rng, kind, hour)
        amounts += _slots(rng, usd)
    series = Series(name, kind, amounts)
    hourly_usd = sum(amounts) / len(amounts) * SLOTS_PER_HOUR / NANO
    order = rng.sample(INCIDENTS, len(INCIDENTS))
    for position, incident in enumerate(order):
        day = QUIET_DAYS + position * DAYS_PER_INCIDENT
        _add_incident(rng, series, incident, day, hourly_usd)
    return series


def _hour_usd(rng: random.Random, kind: str, hour: int) -> float:
    """Dollars of one hour, before scale."""
    of_day = hour % 24
    weekend = hour // 24 % 7 >= 5
    match kind:
        case "production":
            swing = 0.7 + 0.3 * math.sin((of_day - 8) / 24 * 2 * math.pi)
            return 20 * swing * (0.8 if weekend else 1.0) * rng.lognormvariate(0, 0.15)
        case "office":
            busy = 9 <= of_day < 18 and not weekend
            return (25 if busy else 0.2) * rng.lognormvariate(0, 0.3)
        case "development":
            busy = 10 <= of_day < 19 and not weekend and rng.random() < 0.6
            return 5 * rng.lognormvariate(0, 0.8) if busy else 0.0
        case "batch":
            return 60 * rng.lognormvariate(0, 0.2) if 2 <= of_day < 4 else 0.0
        case _:
            return 4 * rng.lognormvariate(0, 0.8) if rng.random() < 0.04 else 0.0


def _slots(rng: random.Random, usd: float) -> Iterator[int]:
    weights = [rng.expovariate(1) for _ in range(SLOTS_PER_HOUR)]
    total = sum(weights)
    return (int(usd * NANO * weight / total) for weight in weights)


def _add_incident(
    rng: random.Random, series: Series, kind: str, day: int, hourly_usd: float
) -> None:
    start = day * SLOTS_PER_DAY
    match kind:
        case "runaway":
            first = start + rng.randrange(2 * SLOTS_PER_DAY)
            end = first + rng.randrange(2, 7) * SLOTS_PER_HOUR
            rate = max(rng.uniform(8, 20) * hourly_usd, 40.0)
            spans = [(first, end)]
        case "step":
            first = start + rng.randrange(SLOTS_PER_DAY)
            end = first + 2 * SLOTS_PER_DAY
            rate = max(rng.uniform(2, 3) * hourly_usd, 4.0)
            spans = [(first, end)]
        case "leak":
            first = start + rng.randrange(SLOTS_PER_DAY)
            end = first + 5 * SLOTS_PER_DAY
            rate = max(3 * hourly_usd, 4.0)
            spans = [(first, end)]
        case _:
            first = start + SLOTS_PER_HOUR
            end = first + 2 * SLOTS_PER_DAY + 4 * SLOTS_PER_HOUR
            rate = max(rng.uniform(4, 8) * hourly_usd, 8.0)
            spans = [
                (first + night * SLOTS_PER_DAY, first + night * SLOTS_PER_DAY + 4 * SLOTS_PER_HOUR)
                for night in range(3)
            ]
    for low, high in spans:
        for slot in range(low, high):
            grown = (slot - low) / (high - low) if kind == "leak" else 1.0
            usd = rate * grown * rng.lognormvariate(0, 0.2) / SLOTS_PER_HOUR
            series.amounts[slot] += int(usd * NANO)
    series.incidents.append(Incident(kind, first, end))
