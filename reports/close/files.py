"""The files of one close: written aside, hashed, and put in place at once.

    <root>/2026-10/r1/manifest.json            every file: rows, sums, bytes, SHA-256
                      inputs.json              what was frozen
                      acme/bill.json  bill.csv  bill.xlsx  summary.html
                           journal.json  journal-netsuite.csv  ...  push.json
                           focus-cost-and-usage.csv  focus-billing-period.csv

Every byte is a function of the frozen inputs and the booked lines, so a second run writes the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from meterline.backends.clickhouse.client import Client
from meterline.reports.booking.booking_lines import read_days, read_line_sums
from meterline.reports.booking.core.inputs import MANIFEST, FrozenInputs, digest, encode_inputs
from meterline.reports.booking.core.statement import OrganisationStatement, statements_of
from meterline.reports.close.core.bill import OrganisationBill, bill_json, bills
from meterline.reports.close.summary import summary_html
from meterline.reports.close.workbook import workbook_bytes
from meterline.reports.core.csv_text import csv_bytes, text_cell
from meterline.reports.erp.core.journal import Journal, journal_of
from meterline.reports.erp.core.layouts import decimal_text, layout_bytes
from meterline.reports.erp.core.payload import payloads
from meterline.reports.focus.datasets import (
    BILLING_PERIOD,
    COST_AND_USAGE,
    billing_period_bytes,
    write_cost_and_usage,
)
from meterline.schemas.errors import MeterlineError
from meterline.schemas.money import usd_text
from meterline.schemas.periods import rfc3339

MANIFEST_FORMAT = 2
"""Rises when files of the same inputs become other files."""
_HASH_CHUNK_BYTES = 1 << 20


class FilesError(MeterlineError):
    """Files of a closed month are not what its manifest says; the message says which."""


class WrittenFile(NamedTuple):
    """One file with its row count and sums."""

    path: str
    """Relative to the directory of the manifest."""
    rows: int
    sums: dict[str, str]


def directory_of(root: Path, inputs: FrozenInputs) -> Path:
    """The directory of the files of a close."""
    return root / inputs.period / ("draft" if inputs.draft else f"r{inputs.revision}")


def write_files(
    client: Client, inputs: FrozenInputs, earlier: Sequence[FrozenInputs], root: Path
) -> bytes:
    """Write all files and put them in place; returns the manifest's bytes.

    Args:
        client: the store that holds the booked lines.
        inputs: of this close.
        earlier: of the earlier revisions of the same month, the first first.
        root: directory of all closed months.

    Raises:
        FilesError: other files of this revision are in place already.
        JournalError: a journal does not balance.
        ClickHouseError: the store failed or refused the statement.
        OSError: a file cannot be written.
    """
    target = directory_of(root, inputs)
    part = target.with_name(f".{target.name}.part")
    # 1. Aside: a crash leaves a directory that the next attempt replaces.
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    written = _write_all(client, inputs, earlier, part)
    manifest = _manifest(inputs, written, part)
    _store(part / MANIFEST, manifest)
    # 2. In place at once; a closed revision is never replaced by something else.
    if target.exists() and not inputs.draft:
        found = (target / MANIFEST).read_bytes() if (target / MANIFEST).exists() else b""
        if found and found != manifest:
            message = f"{target} holds other files than this close makes: move them away first"
            raise FilesError(message)
    if target.exists():
        shutil.rmtree(target)
    part.replace(target)
    return manifest


def _write_all(
    client: Client, inputs: FrozenInputs, earlier: Sequence[FrozenInputs], part: Path
) -> list[WrittenFile]:
    runs = [each.run for each in earlier] + [inputs.run]
    rows = read_line_sums(client, runs)
    revisions = [
        (each, statements_of((row for row in rows if row.run == each.run), each))
        for each in (*earlier, inputs)
    ]
    own = {statement.organisation: statement for statement in revisions[-1][1]}
    written = [_write(part, "inputs.json", encode_inputs(inputs))]
    folders: dict[str, Path] = {}
    for bill in bills(revisions, read_days(client, runs, inputs.period)):
        folder = part / quote(bill.organisation, safe="")
        folder.mkdir()
        statement = own.get(bill.organisation)
        written += _write_organisation(folder, bill, statement)
        if statement is not None:
            folders[bill.organisation] = folder
    for name, sums in write_cost_and_usage(client, inputs, folders).items():
        written.append(
            WrittenFile(
                f"{folders[name].name}/{COST_AND_USAGE}",
                sums.rows,
                {"BilledCost": usd_text(sums.cost_nano_usd)},
            )
        )
    return written


def _write_organisation(
    folder: Path, bill: OrganisationBill, statement: OrganisationStatement | None
) -> list[WrittenFile]:
    inputs = bill.inputs
    content = bill_json(bill)
    total = {
        "amount": content["summary"]["amount"],
        "cost_usd": content["summary"]["cost_usd"],
    }
    count = len(bill.departments)
    journal = journal_of(statement, inputs) if statement is not None else None
    written = [
        _write(folder, "bill.json", _json(content), count, total),
        _write(folder, "bill.csv", _bill_csv(content), count, total),
        _write(folder, "bill.xlsx", workbook_bytes(bill, journal), count, total),
        _write(folder, "summary.html", summary_html(bill)),
        _write(folder, BILLING_PERIOD, billing_period_bytes(inputs), 1),
    ]
    if journal is not None and statement is not None:
        written += _write_journal(folder, journal, statement, inputs)
    return written


def _write_journal(
    folder: Path, journal: Journal, statement: OrganisationStatement, inputs: FrozenInputs
) -> list[WrittenFile]:
    control = decimal_text(journal.control_total, journal.currency)
    sums = {"debit": control, "credit": control}
    rows = len(journal.lines)
    pushed = payloads(statement, inputs)
    written = [
        _write(folder, "journal.json", _json(_journal_json(journal)), rows, sums),
        _write(
            folder,
            "push.json",
            _json([{"idempotency_key": each.key, **each.body} for each in pushed]),
            len(pushed),
        ),
    ]
    for layout in inputs.policy.journals:
        name = f"journal-{layout.id}.csv"
        written.append(_write(folder, name, layout_bytes(journal, layout), rows, sums))
    return written


def _bill_csv(content: dict[str, Any]) -> bytes:
    texts = ("department", "name", "cost_center")
    numbers = (
        "requests", "unpriced_requests", "prompt_tokens", "completion_tokens", "cost_usd",
        "amount", "share_percent", "budget_usd", "spent_against_budget_usd",
        "budget_used_percent",
    )  # fmt: skip
    header = (*texts, *numbers, "over_budget", "currency")
    rows = [
        [
            *(text_cell(each[name]) for name in texts),
            *("" if each[name] is None else str(each[name]) for name in numbers),
            "true" if each["over_budget"] else "false",
            content["currency"],
        ]
        for each in content["departments"]
    ]
    return csv_bytes(header, rows)


def _journal_json(journal: Journal) -> dict[str, Any]:
    content = asdict(journal)
    content["control_total"] = decimal_text(journal.control_total, journal.currency)
    for line in content["lines"]:
        for side in ("debit", "credit"):
            line[side] = decimal_text(line[side], journal.currency)
    return content


def _json(content: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _write(
    folder: Path, name: str, content: bytes, rows: int = 0, sums: dict[str, str] | None = None
) -> WrittenFile:
    _store(folder / name, content)
    path = name if name == "inputs.json" else f"{folder.name}/{name}"
    return WrittenFile(path, rows, sums or {})


def _store(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _manifest(inputs: FrozenInputs, written: Sequence[WrittenFile], folder: Path) -> bytes:
    files = [
        {
            "path": each.path,
            "rows": each.rows,
            "sums": each.sums,
            "bytes": (folder / each.path).stat().st_size,
            "sha256": file_digest(folder / each.path),
        }
        for each in sorted(written)
    ]
    content = {
        "format": MANIFEST_FORMAT,
        "period": inputs.period,
        "revision": inputs.revision,
        "draft": inputs.draft,
        "run": inputs.run,
        "closed_at": rfc3339(inputs.closed_at_ms),
        "currency": inputs.exchange.currency,
        "price_version": inputs.price_version,
        "files": files,
    }
    return _json({**content, "sha256": digest(msgspec.json.encode(content))})


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def files_in_place(directory: Path, manifest: bytes) -> bool:
    """Whether a directory holds this manifest, and every file is what it says."""
    path = directory / MANIFEST
    return path.is_file() and path.read_bytes() == manifest and not check_files(directory)


def check_files(directory: Path) -> list[str]:
    """Paths whose content is not what the manifest beside them says, or that are not there."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        return [MANIFEST]
    return [
        each["path"]
        for each in manifest["files"]
        if not (directory / each["path"]).is_file()
        or file_digest(directory / each["path"]) != each["sha256"]
    ]
