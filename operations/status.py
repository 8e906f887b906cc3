"""The status of a pipeline: workers, lag, last event, spend against budget, breaker states.

Everything is read from where it already is: the brokers' group offsets, ClickHouse's window rows and
the compacted control topics; what the supervisor says of its processes is handed in. Parts that
cannot be read are named in `faults` and left out; the rest is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.config import KafkaConfig
from meterline.backends.kafka.reader import TopicReader
from meterline.control.store import read_policies
from meterline.operations.lag import read_lag
from meterline.operations.pipeline import Pipeline
from meterline.reports.core.totals import CurrentSpend, WindowScope
from meterline.reports.totals_reader import read_current_spend, read_last_event_ms
from meterline.schemas.errors import collecting
from meterline.schemas.groups import GROUPS, GroupSpec
from meterline.schemas.money import usd_text
from meterline.schemas.periods import Window, WindowKind
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.scopes import ScopeType, parse_scope
from meterline.schemas.throttle import BreakerState, ThrottleCommand, ThrottleError, decode_command
from meterline.schemas.topics import Topic

# An operator waits for the answer: shorter than `backends.kafka.reader.READ_SECONDS_MAX`, because
# what takes longer is down.
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
class PipelineStatus:
    """Everything that `meterline status` shows."""

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


def gather(
    pipeline: Pipeline,
    workers: Sequence[WorkerLine],
    now_ms: int,
    groups: Sequence[GroupSpec] = GROUPS,
) -> PipelineStatus:
    """Read everything that can be read now.

    Args:
        pipeline: of which the status is.
        workers: its processes, as their supervisor last saw them; none where another one runs them.
        now_ms: the time of the question, UTC ms.
        groups: consumer groups of the workers whose lag is read.
    """
    found = PipelineStatus(workers=list(workers))
    month = pipeline.calendar.window(WindowKind.MONTH, now_ms)
    found.period = pipeline.calendar.period(month)
    policies: dict[str, ScopePolicy] = {}
    with collecting(found.faults):
        config = pipeline.kafka("status")
        found.lag = {
            each.worker: each.messages if each.started else None
            for each in read_lag(config, groups)
        }
        objects = read_policies(config, READ_SECONDS)
        policies = {name: item for name, item in objects.items() if isinstance(item, ScopePolicy)}
        found.breakers = {
            scope: command.state.value
            for scope, command in _commands(config, now_ms).items()
            if command.state is not BreakerState.CLOSED
        }
    with collecting(found.faults), closing(Client(pipeline.clickhouse)) as client:
        found.last_event_ms = read_last_event_ms(client)
        found.departments = _departments(client, month, policies, found.breakers)
    return found


def _commands(config: KafkaConfig, now_ms: int) -> dict[str, ThrottleCommand]:
    """The newest command of each scope, unless its lease has ended."""
    newest: dict[str, ThrottleCommand] = {}
    with closing(TopicReader(config, [Topic.THROTTLE_COMMANDS])) as reader:
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
