"""Data for every table that the command line prints: ordinary names, and long and wide ones."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from meterline.app.commands import (
    backtest,
    close,
    deliveries,
    explain,
    provider,
    rates,
    rebuild,
    reconcile,
    report,
    repricing,
    silences,
    status,
    traffic,
    where,
)
from meterline.app.local.demo import month_end
from meterline.app.tables import TerminalTable, labelled_lines
from meterline.operations.event_trace import EventTrace, WindowLine
from meterline.operations.explain import ScopeExplanation
from meterline.operations.rebuild import RebuildReport
from meterline.operations.reconcile import ReconcileReport
from meterline.operations.status import BudgetLine, PipelineStatus, WorkerLine
from meterline.operations.total_difference import TotalDifference
from meterline.operations.verify import VerifyReport
from meterline.pricing.show import PriceRow, RateCardView
from meterline.reports.attribution.core.answer import (
    Answer,
    AttributionBudget,
    AttributionLine,
    Peaks,
)
from meterline.reports.attribution.core.period import Granularity, ReportPeriod
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    read_axis,
)
from meterline.reports.booking.core.ledger import PeriodEntry, PeriodHistory, PeriodState
from meterline.reports.core.arrivals import Arrival, ArrivalOutcome, LogPosition
from meterline.reports.core.deliveries import DeliveryRow
from meterline.reports.decisions import StoredAlert
from meterline.reports.providers.core.variance import (
    Contributor,
    MeasureVariance,
    ModelDay,
    Variance,
)
from meterline.reports.providers.reconcile import Reconciliation
from meterline.reports.repricing.core.whatif import CostComparison, WhatIf
from meterline.reports.repricing.rerate import RerateChange, RerateGroup, Rerating
from meterline.schemas.measures import Sums
from meterline.schemas.periods import Calendar
from meterline.schemas.policy import Limits, ScopePolicy
from meterline.schemas.policy_notify import Silence
from meterline.schemas.throttle import BreakerState

USD = 1_000_000_000
AT_MS = 1_793_448_000_000
"""2026-10-31T12:00Z."""
MONTH = ReportPeriod("2026-10", 1_790_812_800_000, 1_793_491_200_000)
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Names:
    """What tenants, relays and operators call things."""

    organisation: str
    departments: tuple[str, ...]
    key: str
    user: str
    model: str
    channel: str
    reason: str


ORDINARY = Names(
    "acme",
    ("research", "support", "platform-engineering"),
    "k-17",
    "ada@acme.example",
    "claude-sonnet-4-5",
    "slack-oncall",
    "migration of the search index",
)
LONG = Names(
    "a-holding-whose-name-is-sixty-characters-long-and-not-one-mor",
    ("研究開発本部・人工知能応用研究部門・第一グループ", "d" * 60, "Ümläut & Söhne [/quoted]"),
    "k-0123456789abcdef0123456789abcdef0123456789abcdef0123456789",
    "first.middle.last-with-hyphen@subsidiary.department.example",
    "anthropic.claude-sonnet-4-5-20250929-v1:0-eu-central-1-batch",
    "a-pagerduty-channel-of-the-platform-team-in-europe-and-asia1",
    "迁移搜索索引 while the vendor's incident of this morning is still being investigated",
)
WORDS = {"ordinary": ORDINARY, "long": LONG}


def every_table(names: Names) -> Iterator[tuple[str, TerminalTable]]:
    """Each table of each command, by its name."""
    yield from _operator_tables(names)
    yield from _report_tables(names)
    yield from _finance_tables(names)
    yield from _alert_tables(names)


def _department(names: Names, number: int) -> str:
    return f"department:{names.organisation}/{names.departments[number]}"


def _operator_tables(names: Names) -> Iterator[tuple[str, TerminalTable]]:
    overview = PipelineStatus(
        workers=[
            WorkerLine("streams-1", "running", 41_231, 0, 312_000_000),
            WorkerLine("sink", "restarting", None, 12, None),
        ],
        period="2026-10",
        departments=[
            BudgetLine(
                _department(names, 0), 1_499_996_100_000, 1_500 * USD, 182_345, 0, BreakerState.OPEN
            ),
            BudgetLine(
                _department(names, 1), 412 * USD, 500 * USD, 40_112, 3, BreakerState.THROTTLED
            ),
            BudgetLine(
                _department(names, 2), 1_234_567 * USD, None, 9_876_543, 0, BreakerState.CLOSED
            ),
        ],
    )
    yield "status-workers", status.workers_table(overview)
    yield "status-departments", status.departments_table(overview)
    yield "where-arrivals", where.arrivals_table(_receipt(names))
    yield "where-windows", where.windows_table(_receipt(names))
    yield "reconcile", reconcile.differences_table(_reconciled(names))
    yield "verify", traffic.differences_table(_verified(names))
    yield (
        "rebuild",
        rebuild.report_table(
            RebuildReport(
                epoch=3,
                events=12_345_678,
                spent_usd="1234567.890123456",
                totals=41_002,
                zeroed=2,
                ids=9_876_543,
                lanes=12,
                records={"control.policies": 212, "throttle.commands": 17, "alerts": 55},
                seconds=81.4,
            )
        ),
    )


def _receipt(names: Names) -> EventTrace:
    return EventTrace(
        "r-7:1831",
        "counted",
        (
            Arrival(
                ArrivalOutcome.COUNTED, 3, LogPosition(1, 9_912_331, 17), AT_MS, "relay-1", 4_711
            ),
            Arrival(
                ArrivalOutcome.DUPLICATE,
                3,
                LogPosition(1, 9_912_345, 0),
                AT_MS + 812,
                names.key,
                4_712,
            ),
            Arrival(
                ArrivalOutcome.REFUSED,
                0,
                LogPosition(2, 17, 0),
                AT_MS + MINUTE_MS,
                "",
                0,
                "id_conflict",
            ),
        ),
        windows=(
            WindowLine(_department(names, 0), "month", "2026-10", True, "1499.996100000", 182_345),
            WindowLine(
                f"key:{names.organisation}/{names.key}",
                "hour",
                "2026-10-31T12:00+00:00",
                False,
                "0.005504000",
                17,
            ),
        ),
    )


def _reconciled(names: Names) -> ReconcileReport:
    return ReconcileReport(
        period="2026-10",
        totals=41_002,
        events=12_345_678,
        spent_usd="1234567.890123456",
        drift_nano_usd=5_504_000,
        drift_events=2,
        drift_windows=2,
        missing_batches=0,
        lanes_with_gaps=0,
        repaired=0,
        seconds=1.2,
        differences=(
            TotalDifference(
                "streams",
                _department(names, 0),
                "month",
                "2026-10",
                "1234567.890123456",
                "1234567.884619456",
                12_345_678,
                12_345_676,
                1_024,
            ),
        ),
        gaps=(),
    )


def _verified(names: Names) -> VerifyReport:
    return VerifyReport(
        events=100_000,
        streams_diff_nano_usd=5_504_000,
        clickhouse_diff_nano_usd=0,
        missing=0,
        extra=0,
        streams_diff_tokens=1_024,
        streams_diff_events=1,
        clickhouse_diff_tokens=0,
        clickhouse_diff_events=0,
        windows_diff_nano_usd=0,
        windows_diff_events=0,
        totals=41_002,
        expired_totals=0,
        other_events=0,
        waited_seconds=3.0,
        differences=(
            TotalDifference(
                "clickhouse",
                f"key:{names.organisation}/{names.key}",
                "hour",
                "2026-10-31T12:00+00:00",
                "1234567.890123456",
                "1234567.884619456",
                12_345_678,
                12_345_676,
                1_024,
            ),
        ),
    )


def _report_tables(names: Names) -> Iterator[tuple[str, TerminalTable]]:
    two = ("organisation", "department")
    groups = [(names.organisation, each) for each in names.departments]
    yield (
        "report-department",
        report.attribution_table(
            _answer(("department",), [(each,) for each in names.departments], budgets=True)
        ),
    )
    yield (
        "report-organisation-department",
        report.attribution_table(_answer(two, groups, budgets=True)),
    )
    yield (
        "report-department-model",
        report.attribution_table(
            _answer(("department", "model"), [(each, names.model) for each in names.departments])
        ),
    )
    yield (
        "report-four-dimensions-by-day",
        report.attribution_table(
            _answer(
                ("department", "user", "model", "tag:feature"),
                [(each, names.user, names.model, "") for each in names.departments],
                granularity=Granularity.DAY,
            )
        ),
    )
    yield (
        "report-key-peaks",
        report.attribution_table(_answer(("key",), [(names.key,)], budgets=True, peaks=True)),
    )
    yield "report-everything", report.attribution_table(_answer((), [()]))
    what_if = WhatIf(
        MONTH,
        (read_axis("department"), read_axis("model")),
        {
            (names.departments[0], names.model): CostComparison(
                182_345, 1_499_996_100_000, 412 * USD, 0, 0
            ),
            (names.departments[1], ""): CostComparison(17, 0, 5_504_000, 17, 0),
        },
    )
    yield "report-whatif", repricing.what_if_table(what_if, "2026-11")


def _answer(
    by: tuple[str, ...],
    groups: Sequence[tuple[str, ...]],
    *,
    granularity: Granularity = Granularity.TOTAL,
    budgets: bool = False,
    peaks: bool = False,
) -> Answer:
    question = Attribution(
        MONTH, Calendar("UTC"), tuple(map(read_axis, by)), granularity, (), 100_000
    )
    lines = []
    for number, group in enumerate(groups):
        cost = (1_499_996_100_000, 412 * USD, 1_234_567 * USD)[number % 3]
        lines.append(
            AttributionLine(
                MONTH.start_ms,
                MONTH.end_ms if granularity is Granularity.TOTAL else MONTH.start_ms + 86_400_000,
                group,
                Sums(
                    cost_nano_usd=cost,
                    input_tokens=2_123_456_789,
                    output_tokens=312_345_678,
                    cache_read_tokens=12,
                    cache_write_tokens=13,
                    reasoning_tokens=14,
                    events=182_345,
                    unpriced_events=3 if number == 1 else 0,
                ),
                (812_000, 150_000, 38_000)[number % 3],
                Peaks(1_204, 2_345_678) if peaks else None,
                ScopePolicy(
                    scope=f"key:acme/{number}",
                    limits=Limits(requests_per_minute=1_200, tokens_per_minute=3_000_000),
                )
                if peaks
                else None,
                AttributionBudget(
                    f"department:acme/{number}",
                    1_500 * USD,
                    1_500 * USD - cost,
                    100 * cost // (1_500 * USD),
                    cost * 3 // 2,
                    AT_MS if number == 1 else None,
                )
                if budgets
                else None,
            )
        )
    return Answer(question, AttributionSource.USAGE_DAYS, tuple(lines))


def _bill(names: Names) -> TerminalTable:
    """The demo's bill, from a file as the close writes it."""
    departments = [
        {
            "department": each,
            "cost_center": f"4{number}00",
            "amount": ("1,499.99", "412.00", "1,234,567.00")[number],
            "share_percent": ("81.2", None, "3.8")[number],
            "budget_used_percent": (99, None, 82_304)[number],
            "over_budget": number == 2,
        }
        for number, each in enumerate(names.departments)
    ]
    bill = {
        "name": names.organisation,
        "period": "2026-10",
        "currency": "EUR",
        "summary": {"amount": "1,236,478.99"},
        "departments": departments,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / month_end.ORGANISATION / "bill.json"
        path.parent.mkdir()
        path.write_text(json.dumps(bill), encoding="utf-8")
        return month_end.bill_table(Path(folder))


def _finance_tables(names: Names) -> Iterator[tuple[str, TerminalTable]]:
    yield "demo-bill", _bill(names)
    entry = PeriodEntry("2026-10", 3, PeriodState.CLOSED, 1, 1, AT_MS, names.user)
    reopened = PeriodEntry(
        "2026-09", 5, PeriodState.REOPENED, 2, 2, AT_MS, names.user, names.reason
    )
    yield (
        "periods",
        close.periods_table(
            [PeriodHistory("2026-09", (reopened,)), PeriodHistory("2026-10", (entry,))]
        ),
    )
    variance = Variance(
        ModelDay(date(2026, 10, 31), names.model),
        (
            MeasureVariance("requests", 182_345, 171_002),
            MeasureVariance("input_tokens", 2_123_456_789, 2_000_000_000),
            MeasureVariance("cost_usd", 1_499_996_100_000, 0),
        ),
        ("requests", "cost_usd"),
        (Contributor(names.organisation, names.key, 17, 1_234_567, 0, USD),),
    )
    yield (
        "provider-compare",
        provider.comparison_table(
            Reconciliation("anthropic", (date(2026, 10, 31),), (variance,), {})
        ),
    )
    yield (
        "rerate",
        repricing.rerating_table(
            Rerating(
                MONTH,
                "2026-11",
                groups={
                    RerateGroup(
                        names.organisation, names.departments[0], names.model
                    ): RerateChange(182_345, 17, -1_087_996_100_000)
                },
            )
        ),
    )
    prices = {
        "input": "3",
        "output": "15",
        "cache_read": "0.3",
        "cache_write": "3.75",
        "cache_write_1h": "6",
        "input_audio": None,
        "output_audio": "120.000000001",
    }
    yield (
        "rates-show",
        rates.prices_table(
            RateCardView(
                "anthropic",
                names.model,
                (),
                "2026-10-31",
                "2026-10",
                "https://prices.example/anthropic",
                (
                    PriceRow("standard", 0, "2025-09-29", None, prices),
                    PriceRow("priority", 200_000, "2025-09-29", "2026-12-31", prices),
                ),
            )
        ),
    )


def _alert_tables(names: Names) -> Iterator[tuple[str, TerminalTable]]:
    rows = [_delivery(names, "delivered", ""), _delivery(names, "retry", f"503 {names.reason}")]
    yield "deliveries-list", deliveries.deliveries_table(rows)
    yield "deliveries-show", deliveries.attempts_table(rows)
    silence = Silence(
        id="1f2e3d4c",
        match=(f"department={names.departments[0]}", "severity!=critical"),
        starts_at_ms=AT_MS - MINUTE_MS,
        ends_at_ms=AT_MS + 60 * MINUTE_MS,
        author=names.user,
        reason=names.reason,
    )
    yield "silence-list", silences.silences_table([silence], AT_MS)
    explained = ScopeExplanation(
        _department(names, 0),
        BreakerState.OPEN,
        "budget_month",
        f"{_department(names, 0)} spent $1,499.99 of $1,500.00 (99 %) in 2026-10",
        {},
        AT_MS,
        AT_MS + 60 * MINUTE_MS,
        "a higher budget, the month's end, or `meterline throttle release`",
        (f"month budget $1,500.00 by {names.user}: {names.reason}",),
        "3.17",
    )
    yield "explain-scope", explain.scope_table(explained)
    summary = f"{names.departments[0]} reached 90 % of its monthly budget: $1,350.00 of $1,500.00"
    yield (
        "explain-alerts",
        explain.alerts_table(
            [
                StoredAlert(
                    _department(names, 0), "firing", "error", "budget_month", summary, AT_MS, 0
                )
            ]
        ),
    )
    yield "backtest-firings", backtest.firings_table([(AT_MS, "critical", summary)])
    yield (
        "backtest-spend",
        backtest.spend_table(
            {_department(names, number): 1_234_567 * USD for number in range(3)},
            {_department(names, 0): 1_087_996_100_000},
        ),
    )
    yield (
        "alerts-route",
        labelled_lines(
            [
                ("route 1: severity=critical", "no: severity is warning"),
                (f"route 2: department={names.departments[0]}", f"yes: {names.channel}"),
                ("silence 1f2e3d4c", f"mutes it until 2026-10-31 13:00: {names.reason}"),
            ]
        ),
    )


def _delivery(names: Names, outcome: str, error: str) -> DeliveryRow:
    return DeliveryRow(
        message_id="msg_0123456789abcdef",
        channel=names.channel,
        attempt=3,
        at_ms=AT_MS,
        outcome=outcome,
        http_status=503 if error else 200,
        error=error,
        next_attempt_ms=AT_MS + MINUTE_MS if error else 0,
        duration_ms=1_204,
        alert_id="a-1",
        dedup_key=f"budget_month/90/{_department(names, 0)}/2026-10/1",
        alerts=[],
        alert_ids=[],
        route="",
        queue="",
    )
