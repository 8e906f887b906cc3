"""The printable summary of a bill: one HTML file with its charts inside, ready to print."""

from __future__ import annotations

from collections import defaultdict
from importlib import resources
from typing import Any, NamedTuple

import jinja2

from meterline.reports.close.core.bill import DepartmentBill, OrganisationBill, bill_json, percent
from meterline.schemas.money import NanoUsd, usd_display

CHART_DEPARTMENTS_MAX = 20
"""What one page of bars can hold; the table below has all."""
CHART_WIDTH, DAY_CHART_HEIGHT = 1000, 220
_COLOURS = ("#2F6DB5", "#54A88A", "#E2A33B", "#C5573F", "#7A5FA8")
_OTHERS_COLOUR = "#A7AFBA"


class Bar(NamedTuple):
    """One department's bar; per mille of the chart's width."""

    name: str
    spent: str
    budget: str
    used: str
    width: int
    budget_at: int | None
    over: bool


class DayBlock(NamedTuple):
    """One department's part of one day's column, in the chart's units."""

    x: int
    y: int
    width: int
    height: int
    colour: str
    title: str


class DayChart(NamedTuple):
    """Cost by day, stacked by department."""

    blocks: list[DayBlock]
    labels: list[tuple[int, str]]
    legend: list[tuple[str, str]]
    top: str


def summary_html(bill: OrganisationBill) -> bytes:
    """The whole page; nothing in it is loaded from elsewhere."""
    source = (
        resources.files("meterline.reports.close").joinpath("summary.html.j2").read_text("utf-8")
    )
    page = _environment().from_string(source)
    content: dict[str, Any] = {
        "bill": bill_json(bill),
        "bars": _bars(bill),
        "days": _days(bill),
        "over": [_over(each, bill.inputs.period) for each in bill.over_budget],
        "width": CHART_WIDTH,
        "height": DAY_CHART_HEIGHT,
    }
    return page.render(content).encode()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["money"] = _grouped
    return environment


def _grouped(text: str) -> str:
    """A plain decimal with thousands separators, for display only."""
    whole, point, fraction = text.partition(".")
    sign = "-" if whole.startswith("-") else ""
    return f"{sign}{int(whole.lstrip('-')):,}{point}{fraction}"


def _over(each: DepartmentBill, period: str) -> dict[str, str]:
    spent, budget = each.spent_nano_usd(period), each.budget_nano_usd or 0
    return {
        "name": each.name,
        "spent": usd_display(spent),
        "budget": usd_display(budget),
        "by": usd_display(spent - budget),
        "used": percent(spent, budget) or "",
    }


def _bars(bill: OrganisationBill) -> list[Bar]:
    period = bill.inputs.period
    shown = bill.departments[:CHART_DEPARTMENTS_MAX]
    spent = [max(each.spent_nano_usd(period), 0) for each in shown]
    # A budget far above all spending would press the bars flat: then its mark is at the edge.
    longest = 2 * max(spent, default=0)
    most = max([*spent, *(min(each.budget_nano_usd or 0, longest) for each in shown), 1])
    return [
        Bar(
            each.name,
            usd_display(cost),
            "no budget" if each.budget_nano_usd is None else usd_display(each.budget_nano_usd),
            percent(cost, each.budget_nano_usd) or "",
            cost * 1000 // most,
            None
            if each.budget_nano_usd is None
            else min(each.budget_nano_usd * 1000 // most, 1000),
            each.over_budget(period),
        )
        for each, cost in zip(shown, spent, strict=True)
    ]


def _days(bill: OrganisationBill) -> DayChart:
    """The costliest departments in colours, the others together."""
    leaders = [each.department for each in bill.departments[: len(_COLOURS)]]
    names = {each.department: each.name for each in bill.departments}
    costs: defaultdict[str, defaultdict[str, NanoUsd]] = defaultdict(lambda: defaultdict(int))
    for row in bill.days:
        costs[row.day][row.department if row.department in leaders else ""] += row.cost_nano_usd
    days = sorted(costs)
    top = max([sum(max(cost, 0) for cost in costs[day].values()) for day in days] + [1])
    step = CHART_WIDTH // max(len(days), 1)
    colours = dict(zip([*leaders, ""], [*_COLOURS[: len(leaders)], _OTHERS_COLOUR], strict=True))
    blocks: list[DayBlock] = []
    for at, day in enumerate(days):
        y = DAY_CHART_HEIGHT
        for department, colour in colours.items():
            cost = costs[day][department]
            height = max(cost, 0) * DAY_CHART_HEIGHT // top
            y -= height
            if height:
                title = f"{day} {names.get(department, 'others')}: {usd_display(cost)}"
                blocks.append(DayBlock(at * step, y, max(step * 4 // 5, 1), height, colour, title))
    every = max(len(days) // 8, 1)
    labels = [(at * step, day[5:]) for at, day in enumerate(days) if at % every == 0]
    legend = [(names.get(department, "others"), colour) for department, colour in colours.items()]
    if not any(costs[day][""] for day in days):
        legend = legend[:-1]
    return DayChart(blocks, labels, legend, usd_display(top))
