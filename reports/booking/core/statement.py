"""Statements: the lines of one run as amounts that sum; pure.

    organisation   exact cost, rounded once to the currency's smallest unit
      └─ departments   sum to the organisation
           ├─ parts        own usage, shared costs taken over or given away; sum to the department
           │    └─ origins     months in which the usage happened; sum to the own usage
           ├─ projects     sum to the own usage
           └─ models       sum to the own usage

A bill is the sum of the statements of all revisions, so what was booked keeps its cents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from meterline.reports.booking.core.allocation import allocate, round_parts
from meterline.reports.booking.core.currency import Exchange
from meterline.reports.booking.core.inputs import FrozenInputs
from meterline.reports.booking.core.values import LineKind, SumRow
from meterline.schemas.finance import SharedCost
from meterline.schemas.money import NanoUsd

Key = TypeVar("Key", str, "Origin")


class StatementUsage(NamedTuple):
    """Counts and exact money."""

    requests: int = 0
    unpriced: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: NanoUsd = 0

    def plus(self, other: StatementUsage) -> StatementUsage:
        """The sum."""
        return StatementUsage(*(left + right for left, right in zip(self, other, strict=True)))


NOTHING = StatementUsage()


class Origin(NamedTuple):
    """A month of usage and why it is booked now."""

    kind: LineKind
    period: str


class Amount(NamedTuple):
    """Exact usage, and its money in the smallest units of the bill's currency."""

    usage: StatementUsage = NOTHING
    minor: int = 0

    def plus(self, other: Amount) -> Amount:
        """The sum."""
        return Amount(self.usage.plus(other.usage), self.minor + other.minor)


@dataclass(frozen=True, slots=True)
class DepartmentStatement:
    """One department's share of a run."""

    department: str
    total: Amount
    """Own usage and shared costs; its counts are those of the own usage."""
    own: Amount
    origins: Mapping[Origin, Amount]
    shared: Mapping[str, Amount]
    """Department whose cost is borne here, or this department itself with what it gave away."""
    projects: Mapping[str, Amount]
    models: Mapping[str, Amount]


@dataclass(frozen=True, slots=True)
class OrganisationStatement:
    """One organisation's share of a run."""

    organisation: str
    total: Amount
    departments: tuple[DepartmentStatement, ...]


@dataclass(slots=True)
class _Gathered:
    """Exact sums of one department."""

    own: StatementUsage = NOTHING
    origins: defaultdict[Origin, StatementUsage] = field(
        default_factory=lambda: defaultdict(StatementUsage)
    )
    projects: defaultdict[str, StatementUsage] = field(
        default_factory=lambda: defaultdict(StatementUsage)
    )
    models: defaultdict[str, StatementUsage] = field(
        default_factory=lambda: defaultdict(StatementUsage)
    )
    shared: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def cost_nano_usd(self) -> NanoUsd:
        return self.own.cost_nano_usd + sum(self.shared.values())


def statements_of(rows: Iterable[SumRow], inputs: FrozenInputs) -> list[OrganisationStatement]:
    """The statements of one run, organisations and departments in the order of their ids."""
    gathered: defaultdict[str, defaultdict[str, _Gathered]] = defaultdict(
        lambda: defaultdict(_Gathered)
    )
    for row in rows:
        one = gathered[row.organisation][row.department]
        usage = StatementUsage(*row[7:])
        one.own = one.own.plus(usage)
        origin = Origin(row.kind, row.origin_period)
        for sums, key in ((one.projects, row.project), (one.models, row.model)):
            sums[key] = sums[key].plus(usage)
        one.origins[origin] = one.origins[origin].plus(usage)
    for shared in inputs.policy.shared:
        _share(shared, gathered[shared.organisation])
    return [
        _organisation(name, departments, inputs.exchange)
        for name, departments in sorted(gathered.items())
        if departments
    ]


def _share(shared: SharedCost, departments: defaultdict[str, _Gathered]) -> None:
    """Let others bear a department's own cost; what is divided sums exactly."""
    if shared.department not in departments:
        return
    cost = departments[shared.department].own.cost_nano_usd
    bearers = sorted(shared.weights)
    for bearer, part in zip(
        bearers, allocate(cost, [shared.weights[each] for each in bearers]), strict=True
    ):
        departments[bearer].shared[shared.department] += part
    departments[shared.department].shared[shared.department] -= cost


def _organisation(
    name: str, departments: Mapping[str, _Gathered], exchange: Exchange
) -> OrganisationStatement:
    ordered = sorted(departments)
    minors = _rounded([departments[each].cost_nano_usd for each in ordered], exchange)
    stated = tuple(
        _department(each, departments[each], minor, exchange)
        for each, minor in zip(ordered, minors, strict=True)
    )
    total = Amount()
    for each in stated:
        total = total.plus(each.total)
    return OrganisationStatement(name, total, stated)


def _department(
    name: str, gathered: _Gathered, minor: int, exchange: Exchange
) -> DepartmentStatement:
    bearing = sorted(gathered.shared)
    costs = [gathered.own.cost_nano_usd, *(gathered.shared[each] for each in bearing)]
    own_minor, *shared_minors = _rounded(costs, exchange, minor)
    return DepartmentStatement(
        name,
        Amount(gathered.own._replace(cost_nano_usd=gathered.cost_nano_usd), minor),
        Amount(gathered.own, own_minor),
        _split(gathered.origins, own_minor, exchange),
        {
            each: Amount(StatementUsage(cost_nano_usd=gathered.shared[each]), part)
            for each, part in zip(bearing, shared_minors, strict=True)
        },
        _split(gathered.projects, own_minor, exchange),
        _split(gathered.models, own_minor, exchange),
    )


def _split(
    parts: Mapping[Key, StatementUsage], total_minor: int, exchange: Exchange
) -> dict[Key, Amount]:
    ordered = sorted(parts)
    minors = _rounded([parts[each].cost_nano_usd for each in ordered], exchange, total_minor)
    return {each: Amount(parts[each], minor) for each, minor in zip(ordered, minors, strict=True)}


def _rounded(
    costs_nano_usd: Sequence[int], exchange: Exchange, total_minor: int | None = None
) -> list[int]:
    exact = [exchange.exact(cost) for cost in costs_nano_usd]
    return round_parts(exact, exchange.unit, total_minor)
