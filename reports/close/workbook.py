"""The bill as a workbook with charts; the same bytes for the same bill.

Amounts are written twice: as numbers, for sums and charts (a spreadsheet holds 15 digits), and as exact
text. The bytes do not vary because XlsxWriter stamps its archive members with 1980 and the one
time inside is that of the close.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import xlsxwriter

from meterline.reports.booking.core.statement import Amount
from meterline.reports.close.core.bill import DepartmentBill, OrganisationBill, percent, ranked
from meterline.reports.erp.core.journal import Journal
from meterline.reports.erp.core.layouts import decimal_text
from meterline.schemas.money import usd_decimal, usd_text

CHART_BARS_MAX = 15
"""More bars than this cannot be distinguished; the sheet lists all departments."""
_SERIES_COLOUR = "#2F6DB5"
_BUDGET_COLOUR = "#C9CED6"


def workbook_bytes(bill: OrganisationBill, journal: Journal | None) -> bytes:
    """The whole workbook."""
    out = io.BytesIO()
    book = xlsxwriter.Workbook(
        out,
        {
            "in_memory": True,
            # Names come from outside: nothing is to become a formula, link or number.
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        },
    )
    inputs = bill.inputs
    # A file has no time zone; UTC is meant.
    at = datetime.fromtimestamp(inputs.closed_at_ms // 1000, UTC).replace(tzinfo=None)
    book.set_properties(
        {"title": f"{bill.name} {inputs.period}", "author": "Meterline", "created": at}
    )
    sheets = _Sheets(book, bill)
    sheets.summary()
    sheets.departments()
    sheets.split("Projects", "project", "projects")
    sheets.split("Models", "model", "models")
    sheets.days()
    if journal is not None:
        sheets.journal(journal)
    book.close()
    return out.getvalue()


class _Sheets:
    """One method per sheet."""

    def __init__(self, book: Any, bill: OrganisationBill) -> None:
        self._book = book
        self._bill = bill
        self._whole_nano_usd = bill.total.usage.cost_nano_usd
        digits = bill.exchange.digits
        places = f".{'0' * digits}" if digits else ""
        self._title = book.add_format({"bold": True, "font_size": 16})
        self._head = book.add_format(
            {"bold": True, "bg_color": "#1F3A5F", "font_color": "white", "text_wrap": True}
        )
        self._count = book.add_format({"num_format": "#,##0"})
        self._money = book.add_format({"num_format": f"#,##0{places}"})
        self._bold = book.add_format({"bold": True})
        self._bold_money = book.add_format({"bold": True, "top": 1, "num_format": f"#,##0{places}"})
        self._bold_count = book.add_format({"bold": True, "top": 1, "num_format": "#,##0"})
        self._alert = book.add_format({"bold": True, "font_color": "#B42318"})
        self._dollars = book.add_format({"num_format": "#,##0.00"})
        self._exact = book.add_format({"align": "right"})

    def summary(self) -> None:
        bill, sheet = self._bill, self._book.add_worksheet("Summary")
        inputs, exchange, total = bill.inputs, bill.exchange, bill.total
        sheet.set_column(0, 0, 30)
        sheet.set_column(1, 3, 22)
        draft = " (DRAFT)" if inputs.draft else ""
        sheet.write_string(0, 0, f"{bill.name}: AI usage {inputs.period}{draft}", self._title)
        facts: list[tuple[str, Any, Any]] = [
            ("Revision", inputs.revision, self._count),
            ("Total", self._minor(total), self._money),
            ("Currency", exchange.currency, None),
            ("Exact cost, USD", usd_text(total.usage.cost_nano_usd), None),
            ("Exchange rate", f"{exchange.rate} ({exchange.kind})", None),
            ("Requests", total.usage.requests, self._count),
            ("Prompt tokens", total.usage.prompt_tokens, self._count),
            ("Completion tokens", total.usage.completion_tokens, self._count),
            ("Requests without a price", total.usage.unpriced, self._count),
            ("Billing time zone", inputs.time_zone, None),
            ("Departments", len(bill.departments), self._count),
            ("Over budget", len(bill.over_budget), self._count),
        ]
        for row, (name, value, style) in enumerate(facts, 2):
            sheet.write_string(row, 0, name, self._bold)
            sheet.write(row, 1, value, style)
        row = len(facts) + 3
        if bill.over_budget:
            sheet.write_string(row, 0, "Over budget", self._alert)
        for each in bill.over_budget:
            row += 1
            used = percent(each.spent_nano_usd(inputs.period), each.budget_nano_usd)
            sheet.write_string(row, 0, each.name)
            sheet.write_string(row, 1, f"{used} % of budget", self._alert)

    def departments(self) -> None:
        bill, sheet = self._bill, self._book.add_worksheet("Departments")
        period, currency = bill.inputs.period, bill.exchange.currency
        header = (
            "Department", "Name", "Cost centre", "Requests", "Prompt tokens", "Completion tokens",
            f"Amount {currency}", "Exact USD", "Spent USD", "Budget USD", "Budget used %",
            "Share %", "Over budget",
        )  # fmt: skip
        self._header(sheet, header, (16, 24, 14, 12, 16, 18, 16, 20, 14, 14, 14, 10, 12))
        for row, each in enumerate(bill.departments, 1):
            self._department(sheet, row, each, period)
        last = len(bill.departments)
        self._total(sheet, last + 1, bill.total)
        if not last:
            return
        shown = min(last, CHART_BARS_MAX)
        chart = self._book.add_chart({"type": "bar"})
        for column, name, colour in ((9, "Budget", _BUDGET_COLOUR), (8, "Spent", _SERIES_COLOUR)):
            chart.add_series(
                {
                    "name": f"{name} (USD)",
                    "categories": ["Departments", 1, 1, shown, 1],
                    "values": ["Departments", 1, column, shown, column],
                    "fill": {"color": colour},
                    "overlap": 100,
                    "gap": 60,
                }
            )
        chart.set_title({"name": f"Spend against budget, {period}", "name_font": {"size": 12}})
        chart.set_y_axis({"reverse": True})
        chart.set_x_axis({"num_format": "#,##0", "major_gridlines": {"visible": True}})
        chart.set_legend({"position": "bottom"})
        chart.set_size({"width": 860, "height": 120 + 26 * shown})
        sheet.insert_chart(last + 4, 1, chart)

    def _department(self, sheet: Any, row: int, each: DepartmentBill, period: str) -> None:
        usage, spent = each.total.usage, each.spent_nano_usd(period)
        sheet.write_string(row, 0, each.department)
        sheet.write_string(row, 1, each.name)
        sheet.write_string(row, 2, each.cost_center or "unmapped")
        sheet.write_number(row, 3, usage.requests, self._count)
        sheet.write_number(row, 4, usage.prompt_tokens, self._count)
        sheet.write_number(row, 5, usage.completion_tokens, self._count)
        sheet.write_number(row, 6, self._minor(each.total), self._money)
        sheet.write_string(row, 7, usd_text(usage.cost_nano_usd), self._exact)
        sheet.write_number(row, 8, usd_decimal(spent), self._dollars)
        if each.budget_nano_usd is not None:
            sheet.write_number(row, 9, usd_decimal(each.budget_nano_usd), self._dollars)
        sheet.write_string(row, 10, percent(spent, each.budget_nano_usd) or "", self._exact)
        share = percent(usage.cost_nano_usd, self._whole_nano_usd) or ""
        sheet.write_string(row, 11, share, self._exact)
        sheet.write_string(row, 12, "yes" if each.over_budget(period) else "", self._alert)

    def split(self, title: str, singular: str, part: str) -> None:
        bill, sheet = self._bill, self._book.add_worksheet(title)
        header = (
            "Department", singular.capitalize(), "Requests", "Prompt tokens", "Completion tokens",
            f"Amount {bill.exchange.currency}", "Exact USD", "Share of department %",
        )  # fmt: skip
        self._header(sheet, header, (18, 34, 12, 16, 18, 16, 20, 14))
        row = 1
        for each in bill.departments:
            for name, amount in ranked(getattr(each, part)):
                usage = amount.usage
                sheet.write_string(row, 0, each.department)
                sheet.write_string(row, 1, name or "(none)")
                sheet.write_number(row, 2, usage.requests, self._count)
                sheet.write_number(row, 3, usage.prompt_tokens, self._count)
                sheet.write_number(row, 4, usage.completion_tokens, self._count)
                sheet.write_number(row, 5, self._minor(amount), self._money)
                sheet.write_string(row, 6, usd_text(usage.cost_nano_usd), self._exact)
                share = percent(usage.cost_nano_usd, each.own.usage.cost_nano_usd)
                sheet.write_string(row, 7, share or "", self._exact)
                row += 1
        sheet.autofilter(0, 0, max(row - 1, 1), len(header) - 1)

    def days(self) -> None:
        sheet = self._book.add_worksheet("Days")
        self._header(sheet, ("Day", "Cost USD", "Exact USD"), (14, 16, 22))
        sums: defaultdict[str, int] = defaultdict(int)
        for each in self._bill.days:
            sums[each.day] += each.cost_nano_usd
        for row, (day, cost) in enumerate(sorted(sums.items()), 1):
            sheet.write_string(row, 0, day)
            sheet.write_number(row, 1, usd_decimal(cost), self._dollars)
            sheet.write_string(row, 2, usd_text(cost), self._exact)
        if not sums:
            return
        chart = self._book.add_chart({"type": "column"})
        chart.add_series(
            {
                "name": "Cost (USD)",
                "categories": ["Days", 1, 0, len(sums), 0],
                "values": ["Days", 1, 1, len(sums), 1],
                "fill": {"color": _SERIES_COLOUR},
                "gap": 40,
            }
        )
        chart.set_title({"name": "Cost by day", "name_font": {"size": 12}})
        chart.set_legend({"none": True})
        chart.set_size({"width": 860, "height": 320})
        sheet.insert_chart(1, 4, chart)

    def journal(self, journal: Journal) -> None:
        sheet = self._book.add_worksheet("Journal")
        header = (
            "Line", "Account", "Debit", "Credit", "Cost centre", "Department", "Memo", "Month",
            "Exact USD",
        )  # fmt: skip
        self._header(sheet, header, (6, 12, 14, 14, 14, 18, 52, 10, 20))
        digits = self._bill.exchange.digits
        for row, line in enumerate(journal.lines, 1):
            sheet.write_number(row, 0, line.line_no)
            sheet.write_string(row, 1, line.account)
            for column, amount in ((2, line.debit), (3, line.credit)):
                if amount:
                    sheet.write_number(row, column, Decimal(amount).scaleb(-digits), self._money)
            texts = (
                line.cost_center,
                line.department,
                line.memo,
                line.origin_period,
                line.cost_usd,
            )
            for column, text in enumerate(texts, 4):
                sheet.write_string(row, column, text)
        row = len(journal.lines) + 2
        sheet.write_string(row, 0, "Control total", self._bold)
        sheet.write_string(
            row, 2, decimal_text(journal.control_total, journal.currency), self._bold
        )

    def _header(self, sheet: Any, names: Sequence[str], widths: Sequence[int]) -> None:
        for column, (name, width) in enumerate(zip(names, widths, strict=True)):
            sheet.set_column(column, column, width)
            sheet.write_string(0, column, name, self._head)
        sheet.freeze_panes(1, 0)
        # On paper: all columns on one page, the header on every one.
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        sheet.repeat_rows(0)

    def _total(self, sheet: Any, row: int, total: Amount) -> None:
        usage = total.usage
        sheet.write_string(row, 0, "Total", self._bold)
        sheet.write_number(row, 3, usage.requests, self._bold_count)
        sheet.write_number(row, 4, usage.prompt_tokens, self._bold_count)
        sheet.write_number(row, 5, usage.completion_tokens, self._bold_count)
        sheet.write_number(row, 6, self._minor(total), self._bold_money)
        sheet.write_string(row, 7, usd_text(usage.cost_nano_usd), self._bold)

    def _minor(self, amount: Amount) -> Decimal:
        return Decimal(amount.minor).scaleb(-self._bill.exchange.digits)
