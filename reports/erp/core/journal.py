"""The neutral journal: one balanced entry per organisation and revision; pure.

    debit    expense account, per department, month of origin and shared cost, with cost centre
    debit    suspense account where a department has no cost centre
    credit   clearing account, the sum

A part below zero is booked on the other side. Debits equal credits by construction, and
`check_balance` proves it before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from meterline.reports.booking.core.inputs import FrozenInputs
from meterline.reports.booking.core.months import month_named
from meterline.reports.booking.core.statement import (
    Amount,
    DepartmentStatement,
    OrganisationStatement,
)
from meterline.reports.booking.core.values import LineKind
from meterline.schemas.errors import MeterlineError
from meterline.schemas.money import usd_text


class JournalError(MeterlineError):
    """A journal that does not balance: nothing is written."""


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line; exactly one of debit and credit is above zero, in smallest units."""

    line_no: int
    account: str
    debit: int
    credit: int
    cost_center: str
    department: str
    memo: str
    external_line_id: str
    origin_period: str
    cost_usd: str
    """The exact amount in US dollars before it was rounded, signed as a debit."""


@dataclass(frozen=True, slots=True)
class Journal:
    """One balanced entry."""

    journal_id: str
    organisation: str
    company: str
    ledger: str
    source: str
    period: str
    revision: int
    posting_date: str
    """The last day of the month."""
    document_date: str
    currency: str
    rate: str
    reference: str
    header_text: str
    lines: tuple[JournalLine, ...]

    @property
    def control_total(self) -> int:
        """The sum of all debits, smallest units."""
        return sum(line.debit for line in self.lines)


def journal_id(organisation: str, period: str, revision: int) -> str:
    """The same in every attempt: the key by which receivers recognise a repetition."""
    return f"{organisation}-{period}-r{revision}"


def journal_of(statement: OrganisationStatement, inputs: FrozenInputs) -> Journal:
    """Book one organisation's statement of one run.

    Raises:
        JournalError: it does not balance; no statement should cause that.
    """
    policy = inputs.policy
    accounts = policy.accounts
    name = journal_id(statement.organisation, inputs.period, inputs.revision)
    lines: list[JournalLine] = []
    for department in statement.departments:
        lines += _department_lines(name, department, statement.organisation, inputs, len(lines))
    total = statement.total
    if total.minor:
        memo = f"AI usage {inputs.period}, {len(statement.departments)} departments"
        lines.append(
            _line(
                name,
                len(lines) + 1,
                Amount(
                    total.usage._replace(cost_nano_usd=-total.usage.cost_nano_usd), -total.minor
                ),
                (accounts.clearing, "", "", memo, inputs.period),
            )
        )
    month = month_named(inputs.period, inputs.time_zone)
    journal = Journal(
        journal_id=name,
        organisation=statement.organisation,
        company=accounts.companies.get(statement.organisation, statement.organisation),
        ledger=accounts.ledger,
        source=accounts.source,
        period=inputs.period,
        revision=inputs.revision,
        posting_date=month.last_day.isoformat(),
        document_date=month.last_day.isoformat(),
        currency=inputs.exchange.currency,
        rate=inputs.exchange.rate,
        reference=name,
        header_text=f"AI usage {inputs.period}"
        + (f", revision {inputs.revision}" if inputs.revision > 1 else ""),
        lines=tuple(lines),
    )
    check_balance(journal)
    return journal


def _department_lines(
    name: str,
    department: DepartmentStatement,
    organisation: str,
    inputs: FrozenInputs,
    before: int,
) -> list[JournalLine]:
    centers = {(each.organisation, each.department): each for each in inputs.departments}
    known = centers.get((organisation, department.department))
    center = known.cost_center if known else ""
    accounts = inputs.policy.accounts
    account = accounts.expense if center else accounts.suspense
    title = (known.name if known else "") or department.department
    parts: list[tuple[str, str, Amount]] = []
    for origin, amount in sorted(department.origins.items()):
        label = {
            LineKind.USAGE: "AI usage",
            LineKind.LATE: "AI usage, adjustment of",
            LineKind.RESTATEMENT: "AI usage, restatement of",
            LineKind.RERATE: "AI usage, price adjustment of",
        }[origin.kind]
        parts.append((f"{label} {origin.period} {title}", origin.period, amount))
    for other, amount in sorted(department.shared.items()):
        what = "borne by others" if other == department.department else f"share of {other}"
        parts.append((f"AI usage {inputs.period} {title}, {what}", inputs.period, amount))
    lines: list[JournalLine] = []
    for memo, origin_period, amount in parts:
        if amount.minor:
            number = before + len(lines) + 1
            head = (account, center, department.department, memo, origin_period)
            lines.append(_line(name, number, amount, head))
    return lines


def _line(
    name: str, number: int, amount: Amount, head: tuple[str, str, str, str, str]
) -> JournalLine:
    account, center, department, memo, origin_period = head
    return JournalLine(
        line_no=number,
        account=account,
        debit=max(amount.minor, 0),
        credit=max(-amount.minor, 0),
        cost_center=center,
        department=department,
        memo=memo,
        external_line_id=f"{name}-{number}",
        origin_period=origin_period,
        cost_usd=usd_text(amount.usage.cost_nano_usd),
    )


def check_balance(journal: Journal) -> None:
    """Prove that a journal balances.

    Raises:
        JournalError: debits and credits differ, or a line is on both sides or on none.
    """
    credit = sum(line.credit for line in journal.lines)
    if journal.control_total != credit:
        message = f"{journal.journal_id}: debits {journal.control_total}, credits {credit}"
        raise JournalError(message)
    for line in journal.lines:
        if (line.debit > 0) == (line.credit > 0) or min(line.debit, line.credit) < 0:
            message = f"{journal.journal_id}: line {line.line_no} is not on exactly one side"
            raise JournalError(message)
