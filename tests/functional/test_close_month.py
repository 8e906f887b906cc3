"""Closing months on the real engine: what is booked, refused, repeated, resumed and restated."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.reports.booking.core.ledger import PeriodState
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.close.close import CloseError, CloseOutcome, close_month, reopen_month
from meterline.reports.close.files import check_files
from tests.close_store import (
    CUT_OFF_MS,
    DECEMBER_CUT_OFF_MS,
    NOVEMBER_MS,
    OCTOBER_MS,
    CloseHarness,
    KilledError,
    count_windows,
    october_events,
    store_events,
    usage,
)

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]


@pytest.fixture
def harness(store: Client, tmp_path: Path) -> CloseHarness:
    """An own database per test, with October's events."""
    store_events(store, october_events(), 10)
    return CloseHarness(store, tmp_path / "closes")


def close(
    harness: CloseHarness, period: str = "2026-10", now_ms: int = CUT_OFF_MS, **options: bool
) -> CloseOutcome:
    return close_month(harness.dependencies(), period, now_ms, actor="ana", **options).outcome


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_every_number_is_the_sum_of_its_events(harness: CloseHarness) -> None:
    """Bill, journal and FOCUS file of each organisation add up to its raw events, exactly."""
    assert close(harness) is CloseOutcome.CLOSED
    raw = {
        row[0]: (Decimal(row[1]), row[2])
        for row in harness.client.query(
            "SELECT organisation, toString(sum(cost_usd)), count() FROM usage_events FINAL GROUP BY 1"
        )
    }
    for organisation, (cost, events) in raw.items():
        folder = harness.root / "2026-10" / "r1" / organisation
        bill = json.loads((folder / "bill.json").read_bytes())
        assert Decimal(bill["summary"]["cost_usd"]) == cost
        assert bill["summary"]["requests"] == events
        amount = Decimal(bill["summary"]["amount"])
        assert abs(amount - cost) <= Decimal("0.005")
        assert sum(Decimal(each["amount"]) for each in bill["departments"]) == amount
        for each in bill["departments"]:
            for part in ("projects", "models"):
                assert sum(Decimal(one["amount"]) for one in each[part]) == Decimal(each["amount"])
        journal = json.loads((folder / "journal.json").read_bytes())
        debit = sum(Decimal(line["debit"]) for line in journal["lines"])
        assert debit == sum(Decimal(line["credit"]) for line in journal["lines"]) == amount
        rows = focus(folder)
        assert sum(Decimal(row["BilledCost"]) for row in rows) == cost
        assert sum(int(row["x_RequestCount"]) for row in rows) == events
        assert {row["x_CostSplit"] for row in rows} == {"priced"}


def focus(folder: Path) -> list[dict[str, str]]:
    with (folder / "focus-cost-and-usage.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_repeated_close_writes_the_same_bytes(harness: CloseHarness) -> None:
    """A closed month whose files are lost is written again, byte for byte."""
    assert close(harness) is CloseOutcome.CLOSED
    first = tree(harness.root)
    assert close(harness, now_ms=CUT_OFF_MS + 99) is CloseOutcome.ALREADY
    assert tree(harness.root) == first
    for path in (harness.root / "2026-10" / "r1").rglob("*"):
        if path.is_file():
            path.unlink()
    store_events(harness.client, [usage(999)], 5_000)  # a late event changes nothing of it
    assert close(harness, now_ms=CUT_OFF_MS + 999) is CloseOutcome.ALREADY
    assert tree(harness.root) == first
    assert check_files(harness.root / "2026-10" / "r1") == []
    # The audit entry is repeated with its id, in case the process died before it was written.
    assert len({entry.id for entry in harness.audit}) == 1


def test_closed_month_is_left_alone(harness: CloseHarness) -> None:
    """Closing a closed month whose files are whole touches none; a damaged one is made again."""
    assert close(harness) is CloseOutcome.CLOSED
    first, written = tree(harness.root), stamps(harness.root)
    assert close(harness, now_ms=CUT_OFF_MS + 99) is CloseOutcome.ALREADY
    assert stamps(harness.root) == written
    damaged = harness.root / "2026-10" / "r1" / "acme" / "bill.csv"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"9")
    assert close(harness, now_ms=CUT_OFF_MS + 999) is CloseOutcome.ALREADY
    assert tree(harness.root) == first


def stamps(root: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in root.rglob("*") if path.name != ".lock"}
    return {path: (each.st_ino, each.st_mtime_ns) for path, each in found.items()}


@pytest.mark.parametrize("step", ["lines", "checks", "frozen", "files", "closed", "audit"])
def test_killed_close_resumes(harness: CloseHarness, step: str) -> None:
    """Killed before any step, the next attempt ends with the month closed and booked once."""
    harness.fail_at = step
    with pytest.raises(KilledError):
        close(harness)
    harness.fail_at = ""
    expected = CloseOutcome.ALREADY if step == "audit" else CloseOutcome.CLOSED
    assert close(harness, now_ms=CUT_OFF_MS + 60_000) is expected
    history = read_ledger(harness.client).history("2026-10")
    assert [each.revision for each in history.closed] == [1]
    booked, raw = harness.client.query(
        "SELECT toString(sum(cost_usd)) FROM closed_lines WHERE run = {run:UInt64} "
        "UNION ALL SELECT toString(sum(cost_usd)) FROM usage_events FINAL",
        {"run": history.closed[-1].run},
    )
    assert booked == raw
    assert [entry.action for entry in harness.audit] == ["period.closed"]


def test_refuses_and_says_why(harness: CloseHarness) -> None:
    """Too early, lag, drift and unmapped departments keep a month open, each with its reason."""
    assert close(harness, now_ms=CUT_OFF_MS - 1) is CloseOutcome.REFUSED
    assert "cut-off" in reason(harness)
    assert close(harness, now_ms=NOVEMBER_MS - 1, early=True) is CloseOutcome.REFUSED
    assert "not over" in reason(harness)
    harness.lag = ["sink is behind in usage.events (partition 3: 12 messages)"]
    assert close(harness) is CloseOutcome.REFUSED
    assert reason(harness) == "lag: sink is behind in usage.events (partition 3: 12 messages)"
    harness.lag = []
    harness.policy = harness.policy.replace("cost_center: CC-200, ", "")
    store_events(harness.client, [usage(1_000)], 5_000, windows=False)
    assert close(harness) is CloseOutcome.REFUSED
    assert "no cost centre for acme/support" in reason(harness)
    assert "department:acme/research: streams $" in reason(harness)
    assert read_ledger(harness.client).history("2026-10").state is PeriodState.OPEN
    assert not harness.audit
    assert not list(harness.root.glob("2026-10/r*"))


def reason(harness: CloseHarness) -> str:
    last = read_ledger(harness.client).history("2026-10").last
    assert last is not None
    return last.reason


def test_dry_run_books_nothing(harness: CloseHarness) -> None:
    """A dry run writes draft files in spite of every blocker, and leaves the month as it was."""
    harness.lag = ["sink is behind"]
    harness.policy = harness.policy.replace("cost_center: CC-200, ", "")
    result = close_month(harness.dependencies(), "2026-10", OCTOBER_MS, actor="ana", dry_run=True)
    assert result.outcome is CloseOutcome.DRAFT
    assert {each.kind.value for each in result.blockers} == {"time", "lag", "unmapped"}
    assert result.directory == harness.root / "2026-10" / "draft"
    journal = json.loads((result.directory / "acme" / "journal.json").read_bytes())
    suspense = [line for line in journal["lines"] if line["account"] == "9999"]
    assert {line["department"] for line in suspense} == {"support"}
    assert b"Draft" in (result.directory / "acme" / "summary.html").read_bytes()
    assert read_ledger(harness.client).history("2026-10").entries == ()
    harness.lag, harness.policy = [], CloseHarness(harness.client, harness.root).policy
    assert close(harness) is CloseOutcome.CLOSED


def test_late_event_is_an_adjustment_of_the_next_month(harness: CloseHarness) -> None:
    """What comes after the close is booked in the next month as a correction, and only once."""
    assert close(harness) is CloseOutcome.CLOSED
    october = tree(harness.root / "2026-10")
    late = usage(1, id="late:1")
    own = usage(2, id="november:1", time_ms=NOVEMBER_MS + 5)
    store_events(harness.client, [late, own], 5_000)
    assert close(harness, "2026-11", DECEMBER_CUT_OFF_MS) is CloseOutcome.CLOSED
    assert tree(harness.root / "2026-10") == october
    folder = harness.root / "2026-11" / "r1" / "acme"
    corrections = [row for row in focus(folder) if row["ChargeClass"] == "Correction"]
    assert {row["x_OriginPeriod"] for row in corrections} == {"2026-10"}
    assert {row["BillingPeriodStart"] for row in corrections} == {"2026-11-01T00:00:00Z"}
    assert all(row["ChargePeriodStart"].startswith("2026-10-02") for row in corrections)
    assert sum(int(row["x_RequestCount"]) for row in corrections) == 1
    journal = json.loads((folder / "journal.json").read_bytes())
    memos = [line["memo"] for line in journal["lines"] if line["origin_period"] == "2026-10"]
    assert memos == ["AI usage, adjustment of 2026-10 Support"]
    bill = json.loads((folder / "bill.json").read_bytes())
    support = next(each for each in bill["departments"] if each["department"] == "support")
    assert support["spent_against_budget_usd"] == "0.000000000"
    total = harness.client.query("SELECT toString(sum(cost_usd)) FROM closed_lines")
    assert total == harness.client.query("SELECT toString(sum(cost_usd)) FROM usage_events FINAL")


def test_reopened_month_is_restated_not_edited(harness: CloseHarness) -> None:
    """A revision books the difference only; the first revision stays as it is."""
    assert close(harness) is CloseOutcome.CLOSED
    first = tree(harness.root / "2026-10" / "r1")
    with pytest.raises(CloseError, match="reason"):
        reopen_month(harness.dependencies(), "2026-10", CUT_OFF_MS, actor="ana", reason=" ")
    refund = usage(
        0,
        id="correction:1",
        corrects_id="e-0:1",
        correction_reason="refund",
        input_tokens=-1_000,
        output_tokens=0,
    )
    store_events(harness.client, [refund], 7_000)
    reopen_month(harness.dependencies(), "2026-10", CUT_OFF_MS + 1, actor="ana", reason="refund")
    with pytest.raises(CloseError, match="REOPENED"):
        reopen_month(harness.dependencies(), "2026-10", CUT_OFF_MS + 2, actor="ana", reason="again")
    assert close(harness, now_ms=CUT_OFF_MS + 3) is CloseOutcome.CLOSED
    assert tree(harness.root / "2026-10" / "r1") == first
    folder = harness.root / "2026-10" / "r2" / "acme"
    rows = focus(folder)
    assert {row["ChargeClass"] for row in rows} == {"Correction"}
    assert sum(Decimal(row["BilledCost"]) for row in rows) < 0
    before = json.loads(first["acme/bill.json"])
    after = json.loads((folder / "bill.json").read_bytes())
    journal = json.loads((folder / "journal.json").read_bytes())
    booked = sum(
        Decimal(line["debit"]) - Decimal(line["credit"])
        for line in journal["lines"]
        if line["account"] != "2100"
    )
    assert Decimal(after["summary"]["amount"]) - Decimal(before["summary"]["amount"]) == booked
    raw = harness.client.query(
        "SELECT toString(sum(cost_usd)) FROM usage_events FINAL WHERE organisation = 'acme'"
    )
    assert Decimal(after["summary"]["cost_usd"]) == Decimal(raw[0][0])
    assert [entry.action for entry in harness.audit] == [
        "period.closed", "period.reopened", "period.closed",
    ]  # fmt: skip
    count_windows(harness.client)
