"""Back-tests and rule tests: the worker's engine over spend that is past."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meterline.alerting.core.backtest import SpendSlice, begin
from meterline.operations.backtest import (
    Expected,
    backtest_json,
    chart_data,
    check_expected,
    read_expected,
    read_rules,
    run_file,
)
from meterline.operations.chart import draw
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.errors import UserError
from meterline.schemas.money import NANO_PER_USD
from meterline.schemas.periods import HOUR_MS, MINUTE_MS, parse_rfc3339
from meterline.schemas.policy import Budget, RuleSet, ScopePolicy

KEY = "key:acme/k-1"
RESEARCH = "department:acme/research"
START_MS = parse_rfc3339("2026-11-10T00:00:00Z")
RULES = RuleSet(deviations=())
POLICIES = {KEY: ScopePolicy(scope=KEY, budget=Budget(month_nano_usd=100 * NANO_PER_USD))}
POLICY_FILE = """
version: 1
time_zone: UTC
organisations:
  - id: acme
    departments:
      - id: research
        budget: {month_usd: 1}
"""


def spend(minute: int, usd: int) -> SpendSlice:
    return SpendSlice(START_MS + minute * MINUTE_MS, KEY, usd * NANO_PER_USD, 1_000)


def thresholds(run: object) -> list[int]:
    return [one["threshold"] for one in backtest_json(run)["alerts"] if one["status"] == "firing"]  # type: ignore[arg-type]


def test_each_threshold_fires_once_at_its_minute() -> None:
    """40, 80 and 120 of 100 dollars notify 80 % and 100 %, each in its minute."""
    run = begin(RULES, POLICIES, (), START_MS)
    run.take([spend(0, 40), spend(5, 40), spend(9, 40)])
    run.finish(START_MS + HOUR_MS)
    assert thresholds(run) == [80, 100]
    assert [fired.at_ms - START_MS for fired in run.alerts] == [5 * MINUTE_MS, 9 * MINUTE_MS]
    assert [each.command.state.value for each in run.commands] == ["throttled", "open"]


def test_what_a_throttle_would_have_refused_is_counted() -> None:
    """After the breaker has opened everything counts as refused; of a throttled scope a fifth."""
    run = begin(RULES, POLICIES, (), START_MS)
    run.take([spend(0, 80), spend(1, 10), spend(2, 20), spend(3, 7)])
    # 20 % of 10 while throttled; 90 of 100 is half-open: half of 20; then open: all of 7.
    assert run.refused_nano_usd == {KEY: (2 + 10 + 7) * NANO_PER_USD}
    assert run.spent_nano_usd == {KEY: 117 * NANO_PER_USD}


def test_the_month_to_date_is_known_at_the_start() -> None:
    """What was spent earlier in the month counts towards the budget, and is not notified again."""
    history = [SpendSlice(START_MS - 48 * HOUR_MS, KEY, 70 * NANO_PER_USD, 1)]
    run = begin(RULES, POLICIES, history, START_MS)
    run.take([spend(1, 5)])
    assert run.alerts[0].at_ms == START_MS
    assert run.alerts[-1].alert.threshold == 75
    assert run.spent_nano_usd == {KEY: 5 * NANO_PER_USD}


def test_periods_end_without_spend() -> None:
    """At the month's end the breaker closes and the alerts are resolved, by time alone."""
    run = begin(RULES, POLICIES, (), START_MS)
    run.take([spend(0, 100)])
    run.finish(parse_rfc3339("2026-12-01T00:01:00Z"))
    assert run.commands[-1].command.state.value == "closed"
    assert run.alerts[-1].alert.status.value == "resolved"


def events_file(path: Path, count: int) -> Path:
    lines = [
        {
            "id": f"r-{number}-1",
            "time_ms": START_MS + number * MINUTE_MS,
            "organisation": "acme",
            "department": "research",
            "key": "k-1",
            "model": "gpt-4.1",
            "provider": "openai",
            "input_tokens": 100_000,
        }
        for number in range(count)
    ]
    file = path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, [*lines, lines[0]])), encoding="utf-8")
    return file


def rules_file(path: Path) -> Path:
    file = path / "rules.yaml"
    file.write_text(POLICY_FILE, encoding="utf-8")
    return file


def test_owners_test_their_rules_with_a_file_of_events(tmp_path: Path) -> None:
    """Five requests of 20 cents use up a dollar; a repeated line counts once."""
    given = read_rules(rules_file(tmp_path))
    run = run_file(events_file(tmp_path, 5), given, load_catalogue())
    assert run.spent_nano_usd[RESEARCH] == NANO_PER_USD
    wanted = [Expected("budget_month", RESEARCH, percent) for percent in (50, 80, 100)]
    assert check_expected(run, wanted) == []
    faults = check_expected(run, [*wanted[1:], Expected("hour_spend", RESEARCH)])
    assert faults == [
        f"not expected: budget_month 50 {RESEARCH}",
        f"did not fire: hour_spend  {RESEARCH}",
    ]


@pytest.mark.parametrize("line", ['{"id": 1}', "nonsense"])
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    """The file, the line and the reason, not a traceback."""
    file = tmp_path / "events.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        run_file(file, read_rules(rules_file(tmp_path)), load_catalogue())


def test_an_expectation_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A misspelt field is an error, not an expectation that is always met."""
    file = tmp_path / "expect.json"
    file.write_text('[{"rule": "budget_month", "scoop": "x"}]', encoding="utf-8")
    with pytest.raises(UserError, match="scoop"):
        read_expected(file)


@pytest.mark.parametrize("name", ["run.svg", "run.png"])
def test_the_picture_is_drawn(tmp_path: Path, name: str) -> None:
    """Spend, firings and throttles of the scope that spent most, in both formats."""
    run = begin(RULES, POLICIES, (), START_MS)
    run.take([spend(0, 40), spend(5, 40), spend(9, 40)])
    drawn = chart_data(run, "", START_MS + HOUR_MS)
    assert [state.value for _, _, state in drawn.states] == ["throttled", "open"]
    assert drawn.spend[-1] == (START_MS + 9 * MINUTE_MS, 120.0)
    file = tmp_path / name
    draw(drawn, file)
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert len(content) > 5_000
