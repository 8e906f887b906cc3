"""A synthetic trace that looks like an hour of real conversation traffic.

The numbers below were fitted to the marginal distributions of the Azure LLM inference trace of
November 2023 (conversations); no row of it is copied. Prompts have four humps (short questions,
the typical chat, long contexts, documents), answers two; the arrival rate swells and ebbs over the
hour and jitters within the minute.
"""

from __future__ import annotations

import math
import random  # noqa: TID251 - a seeded generator is what makes the trace the same every time
from typing import NamedTuple

from meterline.operations.replay.traces import TraceRow

ROWS = 19_000
DURATION_SECONDS = 3_500
BURST_PROBABILITY = 0.1
"""Of requests that follow on the heels of the one before: gaps vary a little more than a Poisson
process's (coefficient of variation 1.09)."""
SWELL = 0.35
"""How far the rate of a minute strays from the mean, as a share."""
INPUT_TOKENS_MAX = 14_000
OUTPUT_TOKENS_MAX = 1_000


class Hump(NamedTuple):
    """One log-normal component."""

    weight: float
    log_mean: float
    log_deviation: float


INPUT_HUMPS = (
    Hump(0.03, 3.2, 0.7),
    Hump(0.36, 5.75, 0.45),
    Hump(0.44, 6.95, 0.20),
    Hump(0.17, 8.05, 0.40),
)
OUTPUT_HUMPS = (
    Hump(0.02, 2.65, 0.25),
    Hump(0.62, 4.60, 0.50),
    Hump(0.36, 5.98, 0.20),
)


def synthetic_trace(seed: int, rows: int = ROWS) -> list[TraceRow]:
    """Make the trace: the same seed and number of rows give the same trace.

    Args:
        seed: of the generator.
        rows: number of requests; they always fill DURATION_SECONDS.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    clock_ms = 0.0
    mean_gap_ms = DURATION_SECONDS * 1000 / rows
    phase = draw.random() * math.tau
    made: list[TraceRow] = []
    for _ in range(rows):
        made.append(
            TraceRow(
                int(clock_ms),
                _tokens(draw, INPUT_HUMPS, INPUT_TOKENS_MAX),
                _tokens(draw, OUTPUT_HUMPS, OUTPUT_TOKENS_MAX),
            )
        )
        share = clock_ms / (DURATION_SECONDS * 1000)
        rate = 1 + SWELL * math.sin(math.tau * share - math.pi / 2)
        rate += SWELL / 4 * math.sin(math.tau * 9 * share + phase)
        burst = draw.random() < BURST_PROBABILITY
        gap = draw.expovariate(1.0) * mean_gap_ms / rate
        clock_ms += gap * (
            0.3 if burst else (1 - 0.3 * BURST_PROBABILITY) / (1 - BURST_PROBABILITY)
        )
    return made


def _tokens(draw: random.Random, humps: tuple[Hump, ...], tokens_max: int) -> int:
    (hump,) = draw.choices(humps, [each.weight for each in humps])
    return max(1, min(tokens_max, round(draw.lognormvariate(hump.log_mean, hump.log_deviation))))
