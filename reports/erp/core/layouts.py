"""Journals as the ledgers' upload files want them: column maps, changed by policy; pure.

The layouts are those of public templates; a tenant's own differ, so every column can be renamed,
added or removed in policy. Sources: NetSuite "Journal Entry Import" (header and lines in one file,
grouped by External ID), Workday accounting journal connector, SAP S/4HANA "Upload General Journal
Entries" (at most 999 items per document, credits negative).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

from meterline.reports.core.csv_text import csv_bytes, text_cell
from meterline.reports.erp.core.journal import Journal, JournalLine, check_balance
from meterline.schemas.finance import JournalLayout, LayoutType, minor_digits

SAP_ITEMS_MAX = 999
"""Classic documents have no more; a longer journal becomes several that each balance."""
JOURNAL_KEY_LENGTH_MAX = 30
"""Workday's."""
_HASH_LENGTH = 8
_PLACE = re.compile(r"\{([^{}]*)\}")
_NUMBERS = frozenset(
    f"{{{name}}}"
    for name in (
        "amount", "control_total", "credit", "debit", "line_no", "rate", "signed_amount", "usd",
    )
)  # fmt: skip
"""Columns of nothing but a number: a minus there begins no formula."""

COLUMNS: Mapping[LayoutType, Mapping[str, str]] = MappingProxyType(
    {
        LayoutType.NETSUITE: {
            "External ID": "{journal_id}",
            "Subsidiary": "{company}",
            "Currency": "{currency}",
            "Date": "{date}",
            "Posting Period": "{period}",
            "Memo": "{header_text}",
            "Account": "{account}",
            "Debit": "{debit}",
            "Credit": "{credit}",
            "Department": "{department}",
            "Class": "{cost_center}",
            "Line Memo": "{memo}",
        },
        LayoutType.WORKDAY: {
            "JournalKey": "{journal_key}",
            "Company": "{company}",
            "Currency": "{currency}",
            "LedgerType": "{ledger}",
            "AccountingDate": "{date}",
            "JournalSource": "{source}",
            "JournalEntryMemo": "{header_text}",
            "JournalExternalReferenceID": "{journal_id}",
            "ControlTotalAmount": "{control_total}",
            "Submit": "0",
            "Order": "{line_no}",
            "LedgerAccount": "{account}",
            "DebitAmount": "{debit}",
            "CreditAmount": "{credit}",
            "Memo": "{memo}",
            "ExternalRefID": "{external_line_id}",
            "CostCenter": "{cost_center}",
        },
        LayoutType.SAP: {
            "CompanyCode": "{company}",
            "AccountingDocumentType": "SA",
            "DocumentDate": "{date}",
            "PostingDate": "{date}",
            "TransactionCurrency": "{currency}",
            "DocumentReferenceID": "{reference}",
            "DocumentHeaderText": "{header_text}",
            "GLAccount": "{account}",
            "DebitCreditCode": "{debit_credit}",
            "AmountInTransactionCurrency": "{signed_amount}",
            "CostCenter": "{cost_center}",
            "DocumentItemText": "{memo}",
        },
    }
)


def layout_bytes(journal: Journal, layout: JournalLayout) -> bytes:
    """One upload file.

    Raises:
        JournalError: a part of a divided journal does not balance.
    """
    columns = {**COLUMNS[layout.type], **layout.columns}
    columns = {name: template for name, template in columns.items() if template}
    parts = [journal]
    if layout.type is LayoutType.SAP:
        parts = list(documents(journal, SAP_ITEMS_MAX))
    rows = [
        [_cell(template, fields) for template in columns.values()]
        for part in parts
        for fields in (line_fields(part, line) for line in part.lines)
    ]
    return csv_bytes([text_cell(name) for name in columns], rows)


def documents(journal: Journal, items_max: int) -> Iterator[Journal]:
    """The journal in documents of at most `items_max` lines, each with its own clearing line."""
    if len(journal.lines) <= items_max:
        yield journal
        return
    *booked, clearing = journal.lines
    for number, start in enumerate(range(0, len(booked), items_max - 1), 1):
        lines = booked[start : start + items_max - 1]
        total = sum(line.debit - line.credit for line in lines)
        usd = -sum(Decimal(line.cost_usd) for line in lines)
        name = f"{journal.journal_id}-{number}"
        if total:
            lines = [
                *lines,
                replace(
                    clearing, debit=max(-total, 0), credit=max(total, 0), cost_usd=f"{usd:.9f}"
                ),
            ]
        renumbered = tuple(
            replace(line, line_no=at, external_line_id=f"{name}-{at}")
            for at, line in enumerate(lines, 1)
        )
        part = replace(journal, journal_id=name, reference=name, lines=renumbered)
        check_balance(part)
        yield part


def line_fields(journal: Journal, line: JournalLine) -> dict[str, str]:
    """Every journal field of one line as text: what column templates are made of."""
    signed = line.debit - line.credit
    return {
        "account": line.account,
        "amount": decimal_text(abs(signed), journal.currency),
        "company": journal.company,
        "control_total": decimal_text(journal.control_total, journal.currency),
        "cost_center": line.cost_center,
        "credit": decimal_text(line.credit, journal.currency) if line.credit else "",
        "currency": journal.currency,
        "date": journal.posting_date,
        "debit": decimal_text(line.debit, journal.currency) if line.debit else "",
        "debit_credit": "S" if line.debit else "H",
        "department": line.department,
        "external_line_id": line.external_line_id,
        "header_text": journal.header_text,
        "journal_id": journal.journal_id,
        "journal_key": journal_key(journal.journal_id),
        "ledger": journal.ledger,
        "line_no": str(line.line_no),
        "memo": line.memo,
        "origin_period": line.origin_period,
        "period": journal.period,
        "rate": journal.rate,
        "reference": journal.reference,
        "signed_amount": decimal_text(signed, journal.currency),
        "source": journal.source,
        "usd": line.cost_usd,
    }


def decimal_text(minor: int, currency: str) -> str:
    """Smallest units as a plain decimal."""
    digits = minor_digits(currency)
    return f"{Decimal(minor).scaleb(-digits):.{digits}f}"


def journal_key(journal_id: str) -> str:
    """The id, cut to what ledgers take and still unique."""
    if len(journal_id) <= JOURNAL_KEY_LENGTH_MAX:
        return journal_id
    mark = hashlib.sha256(journal_id.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{journal_id[: JOURNAL_KEY_LENGTH_MAX - _HASH_LENGTH - 1]}-{mark}"


def _cell(template: str, fields: Mapping[str, str]) -> str:
    text = _PLACE.sub(lambda found: fields[found[1]], template)
    return text if template in _NUMBERS else text_cell(text)
