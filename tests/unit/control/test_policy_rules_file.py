"""The rules section of the policy file."""

from __future__ import annotations

import pytest

from meterline.alerting.rules.registry import RULE_KINDS
from meterline.control.policy.file import PolicyFileError, plan
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.policy import RuleSet
from meterline.schemas.policy_rules import DeviationMethod
from meterline.schemas.scopes import ScopeType

FULL = """
version: 1
rules:
  renotify: 4h
  deviation:
    - id: day
      threshold_stddev: 2.5
      window: 7d
      warm_up: 5d
      floor_usd: 0.25
      min_impact_usd: 20
      scope_types: [department, key]
    - id: shape
      method: seasonal
      threshold_stddev: 3
      min_increase_percent: 50
      for: 10m
    - id: loop
      method: spike
      threshold_stddev: 4
      min_increase_percent: 100
  burn_rate:
    - id: fast
      long_window: 1h
      short_window: 5m
      exhausts_within: 4h
      factor: 6
      renotify: 30m
  no_data:
    - id: silent
      after: 6h
  pipeline:
    lag: 2m
    dead_letters: 0
"""


def rules_of(text: str) -> RuleSet:
    item = compile_policy(parse_policy(text, "p"))["rules"]
    assert isinstance(item, RuleSet)
    return item


def test_every_parameter_reaches_the_published_rule() -> None:
    """Durations become seconds, days or hours; dollars nano-dollars; deviations hundredths."""
    rules = rules_of(FULL)
    day, shape, loop = rules.deviations
    assert rules.renotify_seconds == 14_400
    assert (day.threshold_hundredths, day.window_days, day.warm_up_days) == (250, 7, 5)
    assert (day.floor_nano_usd, day.min_impact_nano_usd) == (250_000_000, 20_000_000_000)
    assert day.scope_types == (ScopeType.DEPARTMENT, ScopeType.KEY)
    assert (shape.method, shape.for_seconds) == (DeviationMethod.SEASONAL, 600)
    assert (loop.method, loop.min_increase_percent) == (DeviationMethod.SPIKE, 100)
    (burn,) = rules.burn_rates
    assert (burn.long_seconds, burn.short_seconds, burn.exhausts_within_seconds) == (
        3600,
        300,
        14_400,
    )
    assert (burn.factor, burn.renotify_seconds) == (6, 1800)
    assert rules.no_data[0].after_seconds == 21_600
    assert rules.pipeline.lag_seconds == 120
    assert rules.pipeline.dead_letters is None, "zero switches a rule off"


def test_a_file_without_rules_has_the_published_defaults() -> None:
    """The default of the file and of the record are one."""
    assert rules_of("version: 1") == RuleSet()
    assert [rule.id for rule in RuleSet().deviations] == ["day"]


def test_every_fault_is_reported_at_once_with_its_place() -> None:
    """Ten mistakes in one file, ten lines."""
    text = """
version: 1
rules:
  deviation:
    - id: Day!
      threshold_stddev: lots
      window: 3h
      scope_types: []
    - id: twice
      warm_up: 7d
      window: 3d
    - id: twice
      metho: hourly
    - id: loop
      method: spike
      warm_up: 2d
  burn_rate:
    - id: fast
      long_window: 5m
      short_window: 1h
      exhausts_within: 90
  no_data:
    - id: silent
      after: 1s
"""
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(text, "p")
    said = str(caught.value)
    for part in (
        "threshold_stddev: must be a number such as 2.5; got 'lots'",
        "metho: is not a known field; did you mean 'method'?",
        "exhausts_within: must be a duration such as 30s, 5m, 1h or 7d; got '90'",
        "rules.no_data[silent].after: must be between 1m and 30d",
        "rules.deviation[twice].warm_up: is longer than the window",
        "rules.deviation[twice].id: rule 'twice' is there twice",
        "rules.deviation[loop].warm_up: must be at least 3d for a spike",
        "scope_types: names no level",
        "rules.burn_rate[fast].short_window: must be shorter than long_window",
        "id: must be lower-case letters",
    ):
        assert part in said, said


@pytest.mark.parametrize("value", ["0.4", "101", "2.555", "nan", "1e400", "[1]"])
def test_a_threshold_that_makes_no_sense_is_refused(value: str) -> None:
    """Deviations are between 0.5 and 100, with two decimal places."""
    text = f"version: 1\nrules: {{deviation: [{{id: a, threshold_stddev: {value}}}]}}"
    with pytest.raises(PolicyFileError):
        parse_policy(text, "p")


def test_a_plan_names_the_rule_that_changes() -> None:
    """The diff shows a rule by its id."""
    before = compile_policy(parse_policy(FULL, "p"))
    after = compile_policy(parse_policy(FULL.replace("factor: 6", "factor: 9"), "p"))
    (change,) = plan(before, after)
    assert [field.field for field in change.fields] == ["burn_rates[fast]"]
    assert "factor 9" in change.fields[0].after


def reason_of(text: str) -> str:
    """Why a file with one fault is refused."""
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(text, "p")
    (fault,) = refused.value.faults
    return fault.reason


@pytest.mark.parametrize("name", sorted(RULE_KINDS))
def test_a_name_near_a_kinds_is_answered_with_the_kinds(name: str) -> None:
    """Every kind of rule is a known field of the rules section."""
    for near in (f"{name}s", name[:-1], f"{name[0]}{name}"):
        reason = reason_of(f"version: 1\nrules:\n  {near}: []\n")
        assert reason == f"is not a known field; did you mean {name!r}?"


def test_the_known_fields_of_the_rules_section_are_all_kinds_and_the_fixed_ones() -> None:
    """A name that is near to nothing is answered with all that may be written."""
    reason = reason_of("version: 1\nrules:\n  qqqqqq: []\n")
    known = reason.removeprefix("is not a known field; known here: ").split(", ")
    assert sorted(known) == sorted(["thresholds_percent", "breaker", "renotify", *RULE_KINDS])


@pytest.mark.parametrize("name", sorted(RULE_KINDS))
def test_a_name_near_a_kinds_field_is_answered_with_the_field(name: str) -> None:
    """Within a kind's entry the known fields are those of the kind."""
    kind = RULE_KINDS[name]
    field = max((each.alias or key for key, each in kind.entry.model_fields.items()), key=len)
    entry = f"[{{id: x, {field}x: 1}}]" if kind.is_list else f"{{{field}x: 1}}"
    with pytest.raises(PolicyFileError) as refused:
        parse_policy(f"version: 1\nrules: {{{name}: {entry}}}\n", "p")
    reasons = [each.reason for each in refused.value.faults if each.path.endswith(f"{field}x")]
    assert reasons == [f"is not a known field; did you mean {field!r}?"]
