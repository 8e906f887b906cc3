"""Months of usage in a real ClickHouse, for tests of the close: events, windows, policy, harness."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.operations.policy import compile_policy, parse_policy
from meterline.pricing.catalogue import Catalogue
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.reports.close.close import CloseDependencies
from meterline.schemas.audit import AuditEntry
from meterline.schemas.periods import DAY_MS
from meterline.schemas.policy import PolicyObject
from meterline.schemas.usage import UsageEvent
from meterline.sinks.core.usage_rows import usage_block, usage_rows

OCTOBER_MS = 1_790_812_800_000  # 2026-10-01T00:00Z
NOVEMBER_MS = OCTOBER_MS + 31 * DAY_MS
CUT_OFF_MS = NOVEMBER_MS + 2 * DAY_MS + 6 * 3_600_000
DECEMBER_MS = NOVEMBER_MS + 30 * DAY_MS
DECEMBER_CUT_OFF_MS = DECEMBER_MS + 2 * DAY_MS + 6 * 3_600_000
CATALOGUE = load_catalogue()
POLICY = """
version: 1
organisations:
  - id: acme
    name: Acme Corp
    departments:
      - {id: research, name: Research, cost_center: CC-100, budget: {month_usd: 1}}
      - {id: support, name: Support, cost_center: CC-200, budget: {month_usd: 500}}
      - {id: platform, name: Platform, cost_center: CC-300}
  - id: globex
    departments:
      - {id: sales, name: "=Sales & Co", cost_center: GX-1}
"""
MODELS = (
    ("gpt-4.1", "openai"),
    ("claude-sonnet-4.5", "anthropic"),
    ("gemini-2.5-flash", "google"),
)
DEPARTMENTS = (("acme", "research"), ("acme", "support"), ("acme", "platform"), ("globex", "sales"))


def october_events(count: int = 200) -> list[UsageEvent]:
    """Events of all departments over all days, with cached tokens and large contexts."""
    return [usage(number) for number in range(count)]


def usage(number: int, **fields: Any) -> UsageEvent:
    """One event; the number decides everything that is not given."""
    organisation, department = DEPARTMENTS[number % len(DEPARTMENTS)]
    model, provider = MODELS[number % len(MODELS)]
    given = 1_000 + number * 37 + (250_000 if number % 11 == 0 else 0)
    named: dict[str, Any] = {
        "id": f"e-{number}:1",
        "time_ms": OCTOBER_MS + (number % 31) * DAY_MS + number * 1_000,
        "organisation": organisation,
        "department": department,
        "project": f"p-{number % 3}" if number % 3 else "",
        "key": f"k-{number % 7}",
        "key_name": f"Key {number % 7}",
        "model": model,
        "provider": provider,
        "input_tokens": given,
        "cache_read_tokens": given // 3 if number % 2 else 0,
        "output_tokens": 200 + number,
        "environment": "production",
        "tags": {"feature": f"f-{number % 2}", "noise": str(number)},
    }
    return UsageEvent(**{**named, **fields})


def store_events(
    client: Client,
    events: Iterable[UsageEvent],
    offset: int,
    catalogue: Catalogue = CATALOGUE,
    *,
    windows: bool = True,
) -> None:
    """What the sink does with one message, and the streams with all events: month totals."""
    messages = []
    for at, event in enumerate(events):
        rows = usage_rows(
            msgspec.json.encode(event), event.time_ms, 0, offset + at, 0, catalogue.rate
        )
        assert rows is not None
        messages.append(rows)
    block = usage_block(messages)
    client.insert("usage_events", [InsertColumn(*each) for each in block.columns], block.data)
    if windows:
        count_windows(client)


def count_windows(client: Client) -> None:
    """Month windows of every scope, from the events: what agreeing streams would publish."""
    client.command("TRUNCATE TABLE spend_windows")
    client.command(
        """
INSERT INTO spend_windows (window_kind, window_start, window_end, scope_type, organisation, scope,
    shard, cost_usd, input_tokens, output_tokens, events, unpriced_events, version)
SELECT 'month', toStartOfMonth(event_time), addMonths(toStartOfMonth(event_time), 1),
    splitByChar(':', scope)[1], organisation,
    arrayJoin(arrayConcat(
        [concat('organisation:', organisation),
         concat('department:', organisation, '/', department),
         concat('key:', organisation, '/', key)],
        if(project = '', [], [concat('project:', organisation, '/', project)]))) AS scope,
    '0', sum(cost_usd), sum(input_tokens), sum(output_tokens), count(), countIf(NOT priced), 1
FROM usage_events FINAL GROUP BY ALL"""
    )


@dataclass
class CloseHarness:
    """The dependencies of a close, and what it reported through them."""

    client: Client
    root: Path
    policy: str = POLICY
    lag: list[str] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    catalogue: Catalogue = CATALOGUE
    time_zone: str = "UTC"
    fail_at: str = ""

    def dependencies(self) -> CloseDependencies:
        return CloseDependencies(
            client=self.client,
            root=self.root,
            time_zone=self.time_zone,
            policies=self.policies,
            lag=lambda: self.lag,
            audit=self.audit.append,
            contracted=self.catalogue,
            listed=CATALOGUE,
            on_step=self.step,
        )

    def policies(self) -> Mapping[str, PolicyObject]:
        return compile_policy(parse_policy(self.policy, "policy.yaml"))

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fail_at:
            raise KilledError(name)


class KilledError(Exception):
    """Stands for kill -9 before a step."""


MakeDesk = Callable[[], CloseHarness]
