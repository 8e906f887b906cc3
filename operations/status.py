"""How the pipeline is: workers, lag, last event, spend against budget, breaker states.

Everything is read from where it already is: the supervisor's state file, the brokers' group
offsets, ClickHouse's window rows and the compacted control topics. Parts that cannot be read are
named in `faults` and left out; the rest is shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from meterline.app.local.stack import STATE_FILE
from meterline.app.settings import Settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.reader import TopicReader
from meterline.control.store import read_policies
from meterline.embedded.statefile import read_report
from meterline.reports.totals import (
    CurrentSpend,
    WindowScope,
    read_current_spend,
    read_last_event_ms,
)
from meterline.schemas.errors import collecting
from meterline.schemas.groups import readers_of
from meterline.schemas.money import usd_text
from meterline.schemas.periods import Calendar, Window, WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.scopes import ScopeType, parse_scope
from meterline.schemas.throttle import BreakerState, ThrottleCommand, ThrottleError, decode_command
from meterline.schemas.topics import Topic

# A person waits for the answer; what takes longer is down.
READ_SECONDS = 10


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One process that `meterline up` watches."""

    name: str
    status: str
    pid: int | None
    restarts: int
    rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One department's month."""

    scope: str
    spent_nano_usd: int
    budget_nano_usd: int | None
    events: int
    unpriced_events: int
    breaker: BreakerState

    @property
    def percent(self) -> int | None:
        """floor(100 * spent / budget); None without a budget."""
        if not self.budget_nano_usd:
            return None
        return 100 * self.spent_nano_usd // self.budget_nano_usd


@dataclass(slots=True)
class Overview:
    """All of it."""

    workers: list[WorkerLine] = field(default_factory=list)
    lag: dict[str, int | None] = field(default_factory=dict)
    """Records that a worker has not committed; None before its first commit."""
    last_event_ms: int = 0
    period: str = ""
    departments: list[BudgetLine] = field(default_factory=list)
    breakers: dict[str, str] = field(default_factory=dict)
    """Every scope whose breaker is not closed, of any type."""
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values; money as decimal strings."""
        return {
            "workers": [asdict(worker) for worker in self.workers],
            "lag": self.lag,
            "last_event_ms": self.last_event_ms,
            "period": self.period,
            "departments": [
                {
                    "scope": line.scope,
                    "spent_usd": usd_text(line.spent_nano_usd),
                    "budget_usd": (
                        None if line.budget_nano_usd is None else usd_text(line.budget_nano_usd)
                    ),
                    "percent": line.percent,
                    "events": line.events,
                    "unpriced_events": line.unpriced_events,
                    "breaker": line.breaker.value,
                }
                for line in self.departments
            ],
            "breakers": self.breakers,
            "faults": self.faults,
        }


def gather(settings: Settings, now_ms: int) -> Overview:
    """Read everything that can be read now."""
    found = Overview()
    month = Calendar(settings.time_zone).window(WindowKind.MONTH, now_ms)
    found.period = Calendar(settings.time_zone).period(month)
    report = read_report(settings.data_dir / STATE_FILE)
    if report is not None and report.alive:
        found.workers = [
            WorkerLine(one.name, one.status.value, one.pid, one.restarts, one.rss_bytes)
            for one in report.workers
        ]
    policies: dict[str, ScopePolicy] = {}
    with collecting(found.faults):
        config = kafka_config(settings, "status")
        found.lag = _lag(settings)
        objects = read_policies(config, READ_SECONDS)
        policies = {name: item for name, item in objects.items() if isinstance(item, ScopePolicy)}
        found.breakers = {
            scope: command.state.value
            for scope, command in _commands(settings, now_ms).items()
            if command.state is not BreakerState.CLOSED
        }
    with collecting(found.faults):
        client = Client(clickhouse_config(settings))
        try:
            found.last_event_ms = read_last_event_ms(client)
            found.departments = _departments(client, month, policies, found.breakers)
        finally:
            client.close()
    return found


def _lag(settings: Settings) -> dict[str, int | None]:
    admin = Admin(kafka_config(settings, "status"))
    try:
        found: dict[str, int | None] = {}
        for spec in readers_of(Topic.USAGE_EVENTS):
            behind = admin.group_lag(spec.group, Topic.USAGE_EVENTS)
            found[spec.worker] = None if behind is None else sum(behind.values())
        return found
    finally:
        admin.close()


def _commands(settings: Settings, now_ms: int) -> dict[str, ThrottleCommand]:
    """The newest command of each scope, unless its lease has ended."""
    newest: dict[str, ThrottleCommand] = {}
    reader = TopicReader(kafka_config(settings, "status"), [Topic.THROTTLE_COMMANDS.value])
    try:
        for record in reader.read_to_end(READ_SECONDS):
            if record.value is None:
                continue
            try:
                command = decode_command(record.value)
            except ThrottleError:
                continue
            held = newest.get(command.scope)
            if held is None or command.version > held.version:
                newest[command.scope] = command
    finally:
        reader.close()
    return {scope: item for scope, item in newest.items() if item.expires_at_ms > now_ms}


def _departments(
    client: Client, month: Window, policies: dict[str, ScopePolicy], breakers: dict[str, str]
) -> list[BudgetLine]:
    spent = read_current_spend(client, CurrentSpend([month], [ScopeType.DEPARTMENT]))
    named = {scope for scope in policies if parse_scope(scope).type is ScopeType.DEPARTMENT}
    lines = []
    for scope in sorted(named | {key.scope for key in spent}):
        total = spent.get(WindowScope(WindowKind.MONTH, month.start_ms, scope))
        policy = policies.get(scope)
        lines.append(
            BudgetLine(
                scope,
                total.cost_nano_usd if total else 0,
                policy.budget.month_nano_usd if policy else None,
                total.events if total else 0,
                total.unpriced_events if total else 0,
                BreakerState(breakers.get(scope, BreakerState.CLOSED.value)),
            )
        )
    return sorted(lines, key=lambda line: (-(line.percent or 0), -line.spent_nano_usd))
