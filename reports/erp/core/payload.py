"""What is pushed: one JSON object per department of a closed month; pure."""

from __future__ import annotations

from typing import NamedTuple

from meterline.reports.booking.core.inputs import FrozenInputs
from meterline.reports.booking.core.statement import OrganisationStatement
from meterline.reports.erp.core.journal import journal_id


class Payload(NamedTuple):
    """One delivery; the key is the same in every attempt, so the receiver books it once."""

    key: str
    department: str
    """organisation/department."""
    body: dict[str, str]
    """departmentId, costCenter, amount (a decimal string), currency, period."""


def payloads(statement: OrganisationStatement, inputs: FrozenInputs) -> list[Payload]:
    """One per department whose amount is not zero, in the order of their ids."""
    centers = {
        (each.organisation, each.department): each.cost_center for each in inputs.departments
    }
    name = journal_id(statement.organisation, inputs.period, inputs.revision)
    return [
        Payload(
            f"{name}:{each.department}",
            f"{statement.organisation}/{each.department}",
            {
                "departmentId": each.department,
                "costCenter": centers.get((statement.organisation, each.department), ""),
                "amount": inputs.exchange.text(each.total.minor),
                "currency": inputs.exchange.currency,
                "period": inputs.period,
            },
        )
        for each in statement.departments
        if each.total.minor
    ]
