"""Bills: the statements of all revisions of a month as finance reads them; pure.

Money is exact US dollars (`cost_usd`) and, beside it, the amount in the bill's currency that was
rounded once (`amount`). All texts; nothing here is a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meterline.reports.booking.core.currency import Exchange
from meterline.reports.booking.core.inputs import DepartmentInput, FrozenInputs
from meterline.reports.booking.core.statement import (
    Amount,
    DepartmentStatement,
    Key,
    OrganisationStatement,
    Origin,
)
from meterline.reports.booking.core.values import DayRow
from meterline.schemas.money import NanoUsd, divide_half_even, usd_text

_PERMILLE = 1000
NOT_BILLED = Amount()


def percent(part: int, whole: int | None) -> str | None:
    """`part` of `whole` with one decimal place, half to even; None without a positive whole."""
    if not whole or whole < 0:
        return None
    tenths = divide_half_even(part * _PERMILLE, whole)
    sign = "-" if tenths < 0 else ""
    return f"{sign}{abs(tenths) // 10}.{abs(tenths) % 10}"


@dataclass(slots=True)
class DepartmentBill:
    """One department's month."""

    department: str
    name: str
    cost_center: str
    budget_nano_usd: NanoUsd | None
    total: Amount = NOT_BILLED
    own: Amount = NOT_BILLED
    origins: dict[Origin, Amount] = field(default_factory=dict)
    shared: dict[str, Amount] = field(default_factory=dict)
    projects: dict[str, Amount] = field(default_factory=dict)
    models: dict[str, Amount] = field(default_factory=dict)

    def add(self, statement: DepartmentStatement) -> None:
        """Take one revision's statement in."""
        self.total = self.total.plus(statement.total)
        self.own = self.own.plus(statement.own)
        _add(self.origins, statement.origins)
        _add(self.shared, statement.shared)
        _add(self.projects, statement.projects)
        _add(self.models, statement.models)

    def spent_nano_usd(self, period: str) -> NanoUsd:
        """What counts against the month's budget: its own usage, not late parts of other months."""
        return sum(
            amount.usage.cost_nano_usd
            for origin, amount in self.origins.items()
            if origin.period == period
        )

    def over_budget(self, period: str) -> bool:
        """Whether more was used than the budget allowed."""
        budget = self.budget_nano_usd
        return budget is not None and self.spent_nano_usd(period) > budget


@dataclass(slots=True)
class OrganisationBill:
    """One organisation's month."""

    organisation: str
    name: str
    inputs: FrozenInputs
    departments: list[DepartmentBill] = field(default_factory=list)
    days: list[DayRow] = field(default_factory=list)

    @property
    def total(self) -> Amount:
        """All departments."""
        total = Amount()
        for each in self.departments:
            total = total.plus(each.total)
        return total

    @property
    def exchange(self) -> Exchange:
        """The rate of the newest revision."""
        return self.inputs.exchange

    @property
    def over_budget(self) -> list[DepartmentBill]:
        """Departments above their budget, the worst first."""
        period = self.inputs.period
        over = [each for each in self.departments if each.over_budget(period)]
        return sorted(
            over,
            key=lambda each: (
                (each.budget_nano_usd or 0) - each.spent_nano_usd(period),
                each.department,
            ),
        )

    def by(self, part: str) -> dict[str, Amount]:
        """Sums over all departments by `projects` or `models`, the costliest first."""
        sums: dict[str, Amount] = {}
        for each in self.departments:
            found: Mapping[str, Amount] = getattr(each, part)
            _add(sums, found)
        return dict(ranked(sums))


def bills(
    revisions: Sequence[tuple[FrozenInputs, Iterable[OrganisationStatement]]],
    days: Iterable[DayRow],
) -> list[OrganisationBill]:
    """The bills of a month.

    Args:
        revisions: inputs and statements of each, the newest last; that one's policy names and
            budgets hold.
        days: cost by day of the month's own usage.
    """
    inputs = revisions[-1][0]
    known = {(each.organisation, each.department): each for each in inputs.departments}
    found: dict[str, dict[str, DepartmentBill]] = {}
    for _, statements in revisions:
        for statement in statements:
            departments = found.setdefault(statement.organisation, {})
            for each in statement.departments:
                bill = departments.get(each.department)
                if bill is None:
                    entry = known.get((statement.organisation, each.department))
                    bill = departments[each.department] = _empty(each.department, entry)
                bill.add(each)
    of_days: dict[str, list[DayRow]] = {}
    for row in days:
        of_days.setdefault(row.organisation, []).append(row)
    return [
        OrganisationBill(
            name,
            inputs.organisations.get(name, "") or name,
            inputs,
            sorted(each.values(), key=lambda bill: (-bill.total.minor, bill.department)),
            of_days.get(name, []),
        )
        for name, each in sorted(found.items())
    ]


def _empty(department: str, entry: DepartmentInput | None) -> DepartmentBill:
    if entry is None:
        return DepartmentBill(department, department, "", None)
    return DepartmentBill(
        department, entry.name or department, entry.cost_center, entry.budget_nano_usd
    )


def _add(sums: dict[Key, Amount], more: Mapping[Key, Amount]) -> None:
    for key, amount in more.items():
        sums[key] = sums.get(key, Amount()).plus(amount)


def ranked(sums: Mapping[str, Amount]) -> list[tuple[str, Amount]]:
    """By amount, the largest first; equals by name."""
    return sorted(sums.items(), key=lambda each: (-each[1].minor, each[0]))


def bill_json(bill: OrganisationBill) -> dict[str, Any]:
    """The bill as plain values."""
    inputs, exchange = bill.inputs, bill.exchange
    total = bill.total
    return {
        "organisation": bill.organisation,
        "name": bill.name,
        "period": inputs.period,
        "revision": inputs.revision,
        "draft": inputs.draft,
        "time_zone": inputs.time_zone,
        "currency": exchange.currency,
        "exchange": {**exchange._asdict()},
        "summary": {
            **_amount(total, exchange),
            "departments": len(bill.departments),
            "over_budget": [each.department for each in bill.over_budget],
        },
        "departments": [_department(each, bill, total) for each in bill.departments],
        "projects": _shares(bill.by("projects"), total, exchange, "project"),
        "models": _shares(bill.by("models"), total, exchange, "model"),
    }


def _amount(amount: Amount, exchange: Exchange) -> dict[str, Any]:
    usage = amount.usage
    return {
        "requests": usage.requests,
        "unpriced_requests": usage.unpriced,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usd_text(usage.cost_nano_usd),
        "amount": exchange.text(amount.minor),
    }


def _shares(
    sums: Mapping[str, Amount], whole: Amount, exchange: Exchange, name: str
) -> list[dict[str, Any]]:
    return [
        {
            name: key,
            **_amount(amount, exchange),
            "share_percent": percent(amount.usage.cost_nano_usd, whole.usage.cost_nano_usd),
        }
        for key, amount in ranked(sums)
    ]


def _department(each: DepartmentBill, bill: OrganisationBill, whole: Amount) -> dict[str, Any]:
    exchange, period = bill.exchange, bill.inputs.period
    budget = each.budget_nano_usd
    spent = each.spent_nano_usd(period)
    return {
        "department": each.department,
        "name": each.name,
        "cost_center": each.cost_center,
        **_amount(each.total, exchange),
        "share_percent": percent(each.total.usage.cost_nano_usd, whole.usage.cost_nano_usd),
        "budget_usd": None if budget is None else usd_text(budget),
        "spent_against_budget_usd": usd_text(spent),
        "budget_used_percent": percent(spent, budget),
        "over_budget": each.over_budget(period),
        "own_usage": _amount(each.own, exchange),
        "origins": [
            {"kind": origin.kind.value, "period": origin.period, **_amount(amount, exchange)}
            for origin, amount in sorted(each.origins.items())
        ],
        "shared": [
            {
                "department": name,
                "cost_usd": usd_text(amount.usage.cost_nano_usd),
                "amount": exchange.text(amount.minor),
            }
            for name, amount in sorted(each.shared.items())
        ],
        "projects": _shares(each.projects, each.own, exchange, "project"),
        "models": _shares(each.models, each.own, exchange, "model"),
    }
