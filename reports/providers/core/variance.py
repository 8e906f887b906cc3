"""Pure: a provider's counts against Meterline's.

Meterline's counts are billed; a variance is to be reviewed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from meterline.reports.providers.core.exports import ProviderRowKind
from meterline.schemas.money import NanoUsd, divide_half_even

PPM = 1_000_000
TOLERANCE_PPM = 50_000
"""5 %: days end by the provider's clock and requests by the relay's; retries count differently."""


class ModelDay(NamedTuple):
    """One UTC day and model."""

    day: date
    model: str


class Counts(NamedTuple):
    """Counts of one side."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: NanoUsd = 0

    def plus(self, other: Counts) -> Counts:
        """The sum."""
        return Counts(*(mine + more for mine, more in zip(self, other, strict=True)))


class MeasureVariance(NamedTuple):
    """One count of both sides."""

    name: str
    theirs: int
    ours: int

    @property
    def difference(self) -> int:
        """The provider's count minus Meterline's."""
        return self.theirs - self.ours

    @property
    def variance_ppm(self) -> int | None:
        """Of the provider's count; None where only Meterline counts anything."""
        if self.theirs:
            return divide_half_even(self.difference * PPM, abs(self.theirs))
        return None if self.ours else 0

    def beyond(self, tolerance_ppm: int) -> bool:
        """Whether it needs a review; compared exactly, not by the rounded ratio."""
        return abs(self.difference) * PPM > tolerance_ppm * abs(self.theirs)


class Contributor(NamedTuple):
    """A key behind a flagged day and model."""

    organisation: str
    key: str
    requests: int
    tokens: int
    """In and out, as counted."""
    reported_difference: int
    """Tokens in provider responses minus counted tokens; 0 where relays do not report them."""
    cost_nano_usd: NanoUsd


@dataclass(frozen=True, slots=True)
class Variance:
    """One day and model, compared."""

    cell: ModelDay
    measures: tuple[MeasureVariance, ...]
    flagged: tuple[str, ...]
    """Names of the measures beyond the tolerance."""
    contributors: tuple[Contributor, ...] = ()

    @property
    def weight(self) -> int:
        """Tokens of all differences, to sort by."""
        return sum(abs(each.difference) for each in self.measures if each.name.endswith("tokens"))


Canonical = Callable[[str], str]


def by_model_day(
    counted: Iterable[tuple[ModelDay, Counts]], canonical: Canonical
) -> dict[ModelDay, Counts]:
    """Counts by day and canonical model; those that are of no model are left out."""
    found: dict[ModelDay, Counts] = {}
    for cell, counts in counted:
        if cell.model:
            named = ModelDay(cell.day, canonical(cell.model))
            found[named] = found.get(named, Counts()).plus(counts)
    return found


def compare_counts(
    theirs: Iterable[tuple[ProviderRowKind, ModelDay, Counts]],
    ours: Mapping[ModelDay, Counts],
    canonical: Canonical,
    tolerance_ppm: int = TOLERANCE_PPM,
) -> list[Variance]:
    """Every day that an export covers, by model; each measure that the export has.

    Args:
        theirs: by kind, with the provider's names of models; a Cell without a model says only
            that its day is covered.
        ours: by canonical model.
        canonical: the catalogue's name of a model.
        tolerance_ppm: of the provider's count.

    Returns:
        In the order of day and model.
    """
    rows = list(theirs)
    usage = by_model_day(
        ((cell, each) for kind, cell, each in rows if kind is ProviderRowKind.USAGE), canonical
    )
    costs = by_model_day(
        ((cell, each) for kind, cell, each in rows if kind is ProviderRowKind.COST), canonical
    )
    covered = {
        kind: {cell.day for each, cell, _ in rows if each is kind} for kind in ProviderRowKind
    }
    costed = {cell.day for cell in costs}
    counting = {cell.day for cell, counts in usage.items() if counts.requests}
    found: list[Variance] = []
    for cell in sorted({*usage, *costs, *ours}):
        said, charged = usage.get(cell, Counts()), costs.get(cell, Counts())
        mine = ours.get(cell, Counts())
        measures: list[MeasureVariance] = []
        if cell.day in counting:
            measures.append(MeasureVariance("requests", said.requests, mine.requests))
        if cell.day in covered[ProviderRowKind.USAGE]:
            measures.append(MeasureVariance("input_tokens", said.input_tokens, mine.input_tokens))
            measures.append(
                MeasureVariance("output_tokens", said.output_tokens, mine.output_tokens)
            )
        if cell.day in costed:
            measures.append(MeasureVariance("cost_usd", charged.cost_nano_usd, mine.cost_nano_usd))
        if measures:
            flagged = tuple(each.name for each in measures if each.beyond(tolerance_ppm))
            found.append(Variance(cell, tuple(measures), flagged))
    return found
