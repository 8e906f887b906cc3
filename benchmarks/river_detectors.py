"""The online detectors of `river`, as peers of the history-based rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Scorer = Callable[[Sequence[float]], list[float]]
"""Hourly dollars to a score for each hour, higher being stranger."""


def river_scorers() -> dict[str, Scorer]:
    """River's online detectors for one series."""
    from river import anomaly, preprocessing, time_series  # noqa: PLC0415 - the bench extra

    # River's own annotations are partial.
    new_gaussian: Any = anomaly.GaussianScorer
    new_holt_winters: Any = time_series.HoltWinters

    def gaussian(values: Sequence[float]) -> list[float]:
        model = new_gaussian(window_size=168, grace_period=72)
        scores = []
        for value in values:
            scores.append(float(model.score_one(None, value)) if value else 0.0)
            model.learn_one(None, value)
        # Two-sided: more than usual is what counts here.
        return scores

    def half_space_trees(values: Sequence[float]) -> list[float]:
        scale: Any = preprocessing.MinMaxScaler()
        model: Any = anomaly.HalfSpaceTrees(n_trees=15, height=8, window_size=168, seed=7)
        scores = []
        for hour, value in enumerate(values):
            point = {"value": math.log1p(value), "hour": float(hour % 24)}
            scale.learn_one(point)
            scaled = scale.transform_one(point)
            scores.append(float(model.score_one(scaled)))
            model.learn_one(scaled)
        return scores

    def holt_winters(values: Sequence[float]) -> list[float]:
        model = new_holt_winters(alpha=0.2, beta=0.01, gamma=0.3, seasonality=24)
        scores = []
        spread = 1.0
        for hour, value in enumerate(values):
            # Its first season divides by the level, which is zero of a key that sleeps for a day.
            y = 1.0 + math.log1p(value)
            # It cannot forecast before it has seen a whole season.
            expected = model.forecast(horizon=1)[0] if hour > 2 * 24 else y
            error = y - expected
            scores.append(error / max(spread, 0.15))
            spread = 0.98 * spread + 0.02 * abs(error)
            model.learn_one(y)
        return scores

    return {
        "river_gaussian": gaussian,
        "river_half_space_trees": half_space_trees,
        "river_holt_winters": holt_winters,
    }
