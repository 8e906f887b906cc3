"""Provider reconciliation: reads both sides, compares them, names the keys behind each variance."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date

from meterline.backends.clickhouse.client import Client
from meterline.pricing.catalogue import Catalogue
from meterline.pricing.names import fold, seller_name
from meterline.pricing.rate_card import RateCard
from meterline.reports.providers.core.exports import ProviderRowKind
from meterline.reports.providers.core.layouts import ExportError
from meterline.reports.providers.core.variance import (
    Counts,
    ModelDay,
    Variance,
    by_model_day,
    compare_counts,
)
from meterline.reports.providers.store import (
    DayRange,
    read_contributors,
    read_own_counts,
    read_provider_counts,
)
from meterline.schemas.money import NanoUsd

EXPLAINED_MAX = 50
"""Flagged days and models whose keys are looked up, the largest first: a query each. More than
that has one cause, such as a relay that did not report, and its keys are the same ones."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The comparison of a provider's exports with the counted usage of the same days."""

    provider: str
    days: tuple[date, ...]
    """Covered by exports."""
    variances: tuple[Variance, ...]
    other_costs: dict[str, NanoUsd]
    """Costs without a model (searches, storage, support), by the provider's name of them."""

    @property
    def flagged(self) -> tuple[Variance, ...]:
        """Variances to be reviewed."""
        return tuple(each for each in self.variances if each.flagged)


def reconcile_provider(
    client: Client, catalogue: Catalogue, provider: str, days: DayRange, tolerance_ppm: int
) -> Reconciliation:
    """Compare the imported exports of a provider with what was counted.

    Raises:
        ExportError: no import covers these days.
        ClickHouseError: the store failed or refused the statement.
    """
    seller = seller_name(provider)
    theirs = read_provider_counts(client, seller, days)
    if not theirs:
        message = (
            f"no export of {seller} covers {days.first} to {days.last}: "
            "`meterline provider import FILE` first"
        )
        raise ExportError(message)

    def canonical(model: str) -> str:
        card = catalogue.find(model, seller)
        return card.model if isinstance(card, RateCard) else fold(model)

    names: dict[ModelDay, set[tuple[str, str]]] = defaultdict(set)
    counted: list[tuple[ModelDay, Counts]] = []
    for sent, cell, counts in read_own_counts(client, days):
        if _seller_of(catalogue, sent, cell.model) == seller:
            counted.append((cell, counts))
            names[ModelDay(cell.day, canonical(cell.model))].add((sent, cell.model))
    ours = by_model_day(counted, canonical)
    used = {canonical(cell.model) for kind, cell, _ in theirs if kind is ProviderRowKind.USAGE}
    used |= {cell.model for cell in ours}

    def is_model(name: str) -> bool:
        # Bills list searches and storage beside models: names that have no price here, and that
        # neither side counts tokens of.
        return isinstance(catalogue.find(name, seller), RateCard) or canonical(name) in used

    others: dict[str, NanoUsd] = defaultdict(int)
    compared: list[tuple[ProviderRowKind, ModelDay, Counts]] = []
    for kind, cell, counts in theirs:
        if kind is ProviderRowKind.COST and not is_model(cell.model):
            others[cell.model] += counts.cost_nano_usd
            # Its day is covered all the same.
            compared.append((kind, cell._replace(model=""), counts))
        else:
            compared.append((kind, cell, counts))
    found = compare_counts(compared, ours, canonical, tolerance_ppm)
    largest = sorted((each for each in found if each.flagged), key=lambda each: -each.weight)
    explained = {each.cell for each in largest[:EXPLAINED_MAX]}
    return Reconciliation(
        seller,
        tuple(sorted({cell.day for _, cell, _ in theirs})),
        tuple(
            replace(
                each,
                contributors=read_contributors(client, each.cell.day, sorted(names[each.cell])),
            )
            if each.cell in explained and each.cell in names
            else each
            for each in found
        ),
        {name: cost for name, cost in sorted(others.items()) if cost},
    )


def _seller_of(catalogue: Catalogue, sent: str, model: str) -> str:
    if sent:
        return seller_name(sent)
    card = catalogue.find(model)
    return card.seller if isinstance(card, RateCard) else ""
