"""What every benchmark prints: figures, targets, and whether they are met.

    figures = [Figure("decide_p99_us", values=[3.1, 3.3, 3.0], unit="us")]
    targets = [Target("decide_p99_us", "<", 5.0)]
    finish("gate", figures, targets, json_flag=args.json)

A figure is measured in several rounds; its value is the median, with the spread beside it, because
one run on a shared machine proves nothing. A target names a figure by its name.
"""

from __future__ import annotations

import argparse
import json
import operator
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value for each round."""

    name: str
    values: Sequence[float]
    unit: str

    @property
    def median(self) -> float:
        """The figure's value."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, object]:
        """Median, least, greatest, rounds and unit."""
        return {
            "median": round(self.median, _DIGITS),
            "min": round(min(self.values), _DIGITS),
            "max": round(max(self.values), _DIGITS),
            "rounds": len(self.values),
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure's median has to be; `name` is the figure's."""

    name: str
    op: str
    target: float


def unmet(figures: Sequence[Figure], targets: Sequence[Target]) -> list[Target]:
    """The targets that are not met; each names one of the figures (KeyError otherwise)."""
    medians = {figure.name: figure.median for figure in figures}
    return [each for each in targets if not _OPERATORS[each.op](medians[each.name], each.target)]


def finish(
    name: str, figures: Sequence[Figure], targets: Sequence[Target], *, json_flag: bool
) -> None:
    """Print the outcome and exit: 0 if every target is met, else 1.

    Args:
        name: the benchmark's name.
        figures: what was measured, at least one round each.
        targets: each names one of the figures (KeyError otherwise).
        json_flag: one JSON object on standard output, instead of a table.
    """
    medians = {figure.name: figure.median for figure in figures}
    judged = [
        {
            "name": target.name,
            "value": round(medians[target.name], _DIGITS),
            "op": target.op,
            "target": target.target,
            "met": _OPERATORS[target.op](medians[target.name], target.target),
        }
        for target in targets
    ]
    if json_flag:
        shown = {figure.name: figure.as_json() for figure in figures}
        print(json.dumps({"name": name, "figures": shown, "targets": judged}))
    else:
        _print_table(name, figures, judged)
    sys.exit(0 if all(row["met"] for row in judged) else 1)


def _print_table(
    name: str, figures: Sequence[Figure], judged: Sequence[Mapping[str, object]]
) -> None:
    print(name)
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        print(
            f"  {figure.name:<{width}}  {figure.median:>14,.{_DIGITS}f} {figure.unit:<10}"
            f"  [{min(figure.values):,.{_DIGITS}f} .. {max(figure.values):,.{_DIGITS}f}],"
            f" {len(figure.values)} rounds"
        )
    for row in judged:
        verdict = "met" if row["met"] else "NOT MET"
        print(f"  target {row['name']} {row['op']} {row['target']}: {verdict}")


def json_argument(description: str | None) -> bool:
    """Read the one argument every benchmark has: `--json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return bool(parser.parse_args().json)
