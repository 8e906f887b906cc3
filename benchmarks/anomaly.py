"""How well history-based rules find incidents, and how often they raise false alerts.

    python -m benchmarks.anomaly [--json] [--keys N] [--csv FILE]

The product's own engine reads a labelled corpus (`benchmarks.spend_corpus`) slot by slot, as it
reads spend.snapshots, and its alert records are scored. In the same run: the rule that guides
recommend (this hour against all hours of seven days, 2.5 standard deviations, nothing else), and
the online detectors of `river`, whose thresholds are tuned on the tuning seeds.

    recall          incidents with an alert between their first and last slot (and an hour after)
    false alerts    alerts at any other time, per key and week; two within 24 hours count once
    delay           from an incident's first slot to its first alert
    overspend       spent above the usual pace until then

Rules were tuned on TUNING_SEEDS only; what is printed comes from REPORT_SEEDS.

`--csv FILE` scores any labelled series with the same detectors: columns `time` (ISO 8601 or UTC
seconds), `value` and `label` (1 inside a labelled window). Values are taken as dollars, and the
floors in dollars are switched off, because another series has another scale.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Figure, Target, finish
from benchmarks.river_detectors import river_scorers
from benchmarks.spend_corpus import (
    INCIDENTS,
    SLOT_SECONDS,
    SLOTS_PER_HOUR,
    Incident,
    Series,
    corpus,
)
from meterline.alerting.core import engine
from meterline.alerting.core.state import Effect, PolicyChanged, PublishAlert, Tick
from meterline.alerting.core.totals import SpendSum
from meterline.schemas.alert import Alert, AlertStatus, RuleType
from meterline.schemas.periods import MINUTE_MS, Calendar, WindowKind
from meterline.schemas.policy import Budget, RuleSet, ScopePolicy
from meterline.schemas.policy_rules import BurnRateRule, DeviationMethod, DeviationRule
from meterline.schemas.rule_ref import parse_rule

TUNING_SEEDS = (1, 2)
REPORT_SEEDS = (201, 202)
KEYS_PER_KIND = 6
START_MS = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1000
SLOT_MS = SLOT_SECONDS * 1000
HOUR_SLOTS = SLOTS_PER_HOUR
DAY_SLOTS = 24 * SLOTS_PER_HOUR
WARM_UP_SLOTS = 7 * DAY_SLOTS
WEEK_SLOTS = 7 * DAY_SLOTS
# A window that has just ended is still the incident's.
GRACE_SLOTS = HOUR_SLOTS
NANO = 1_000_000_000

DEFAULT = DeviationRule(id="day")
"""What the product does without a word in the policy file."""
# The recommended set of docs/rules.md, tuned on TUNING_SEEDS. The day's sum finds steps, leaks and
# thefts: more than twice the usual, and a line that seven samples can bear (2.5 deviations of seven
# samples are exceeded as often as 2.0 of many).
CUMULATIVE = DeviationRule(
    id="day",
    threshold_hundredths=400,
    min_impact_nano_usd=20 * NANO,
    min_increase_percent=100,
)
# The last sixty minutes find runaway loops, which the sum of a busy day hides for hours.
SPIKE = DeviationRule(
    id="loop",
    method=DeviationMethod.SPIKE,
    threshold_hundredths=400,
    min_impact_nano_usd=20 * NANO,
    min_increase_percent=100,
)
SEASONAL = DeviationRule(id="shape", method=DeviationMethod.SEASONAL, threshold_hundredths=350)
GUIDE = DeviationRule(
    id="guide",
    method=DeviationMethod.HOURLY,
    warm_up_days=2,
    floor_percent=0,
    floor_nano_usd=0,
    min_impact_nano_usd=0,
    min_increase_percent=0,
    freeze_hours_max=0,
)
BURN = BurnRateRule(id="fast", exhausts_within_seconds=2 * 3600, factor=8)


class Alarm(NamedTuple):
    """One thing a detector said."""

    slot: int
    rule: str


Alarms = dict[str, list[Alarm]]
"""By the name of the series."""


def run_engine(series: Sequence[Series], rules: RuleSet, *, budgets: bool = True) -> Alarms:
    """What the engine says of each series."""
    state = engine.start(1, rules, START_MS)
    scopes = {f"key:bench/{each.name}": each for each in series}
    for scope, each in scopes.items():
        day = max(3 * each.usual_per_day(), 50 * NANO)
        budget = Budget(month_nano_usd=20 * day, day_nano_usd=day) if budgets else Budget()
        policy = ScopePolicy(scope=scope, budget=budget)
        state, _ = engine.step(state, PolicyChanged(scope, policy), START_MS)
    minutes = rules.burn_rates or any(
        rule.method is DeviationMethod.SPIKE for rule in rules.deviations
    )
    feed = _Feed(scopes, minutes=bool(minutes))
    alarms: Alarms = {each.name: [] for each in series}
    for slot in range(max(len(each.amounts) for each in series)):
        now_ms = START_MS + slot * SLOT_MS + MINUTE_MS - 1
        for observation in feed.observations(slot):
            state, effects = engine.step(state, observation, now_ms)
            for alert in _fired(effects):
                alarms[scopes[alert.scope].name].append(Alarm(slot, alert.rule_id))
    return alarms


_OF_BUDGETS = frozenset({RuleType.THRESHOLD, RuleType.LIMIT})


def _fired(effects: Iterable[Effect]) -> Iterator[Alert]:
    """The first firings of rules of history."""
    for effect in effects:
        match effect:
            case PublishAlert(alert) if alert.rule_type not in _OF_BUDGETS:
                if alert.status is AlertStatus.FIRING and not alert.reminder:
                    yield alert
            case _:
                pass


class _Feed:
    """The series as the totals of their windows, as spend.snapshots holds them."""

    def __init__(self, scopes: dict[str, Series], *, minutes: bool) -> None:
        self._scopes = scopes
        self._calendar = Calendar("UTC")
        self._sums: dict[tuple[str, WindowKind], tuple[int, int]] = {}
        self._skipped = 0 if minutes else 1

    def observations(self, slot: int) -> Iterator[SpendSum | Tick]:
        """What one slot changes; the clock's tick first."""
        yield Tick(complete=True)
        windows = self._calendar.windows(START_MS + slot * SLOT_MS)[self._skipped :]
        for scope, each in self._scopes.items():
            amount = each.amounts[slot] if slot < len(each.amounts) else 0
            if not amount:
                continue
            for window in windows:
                start_ms, total = self._sums.get((scope, window.kind), (0, 0))
                total = total + amount if start_ms == window.start_ms else amount
                self._sums[scope, window.kind] = (window.start_ms, total)
                yield SpendSum(scope, window.kind, window.start_ms, window.end_ms, total, 0)


def rule_set(*deviations: DeviationRule, burn: tuple[BurnRateRule, ...] = ()) -> RuleSet:
    """History-based rules, and nothing else."""
    return RuleSet(deviations=deviations, burn_rates=burn, thresholds_percent=())


# --- peers -----------------------------------------------------------------------------------


def hourly_usd(series: Series) -> list[float]:
    """Dollars per hour."""
    return [
        sum(series.amounts[first : first + HOUR_SLOTS]) / NANO
        for first in range(0, len(series.amounts), HOUR_SLOTS)
    ]


def alarms_above(scores: Sequence[float], threshold: float) -> list[Alarm]:
    """An alarm at the end of every hour whose score is above; one a day."""
    found: list[Alarm] = []
    for hour, score in enumerate(scores):
        slot = (hour + 1) * HOUR_SLOTS - 1
        if score > threshold and (not found or slot - found[-1].slot >= DAY_SLOTS):
            found.append(Alarm(slot, "peer"))
    return found


def tuned_threshold(scored: Sequence[tuple[Series, list[float]]]) -> float:
    """The threshold with the best recall at 0.3 false alerts per key and week, or the fewest."""
    values = sorted(score for _, scores in scored for score in scores[7 * 24 :])
    candidates = sorted({values[int(len(values) * share) - 1] for share in _QUANTILES})
    rated = []
    for threshold in candidates:
        alarms = {each.name: alarms_above(scores, threshold) for each, scores in scored}
        outcome = score_alarms([each for each, _ in scored], alarms)
        quiet = outcome.false_per_week <= FALSE_MAX
        rated.append((quiet, outcome.recall if quiet else -outcome.false_per_week, threshold))
    return max(rated)[2]


_QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 1.0)

# --- scores ----------------------------------------------------------------------------------

RECALL_MIN = 0.85
FALSE_MAX = 0.3
FALSE_WORST_MAX = 1.0
RUNAWAY_MIN = 0.95


@dataclass
class Outcome:
    """How a detector did on some series."""

    found: dict[str, list[bool]] = field(default_factory=dict)
    """By kind of incident."""
    within_hour: list[bool] = field(default_factory=list)
    """Of runaway loops."""
    false_alerts: dict[str, int] = field(default_factory=dict)
    """By kind of key."""
    weeks: dict[str, float] = field(default_factory=dict)
    delays_hours: list[float] = field(default_factory=list)
    overspend_usd: list[float] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """Share of incidents found."""
        every = [hit for hits in self.found.values() for hit in hits]
        return sum(every) / len(every) if every else 0.0

    def recall_of(self, kind: str) -> float:
        """Share of one kind of incident found."""
        hits = self.found.get(kind, [])
        return sum(hits) / len(hits) if hits else 0.0

    @property
    def false_per_week(self) -> float:
        """False alerts per key and week."""
        return sum(self.false_alerts.values()) / max(sum(self.weeks.values()), 1e-9)

    @property
    def false_worst(self) -> float:
        """The same of the worst kind of key."""
        return max((self.false_alerts[kind] / self.weeks[kind] for kind in self.weeks), default=0.0)

    @property
    def runaway_within_hour(self) -> float:
        """Share of runaway loops found within an hour."""
        return sum(self.within_hour) / max(len(self.within_hour), 1)


def score_alarms(series: Iterable[Series], alarms: Alarms) -> Outcome:
    """Compare what was said with what is true."""
    outcome = Outcome()
    for each in series:
        said = sorted(alarm.slot for alarm in alarms[each.name] if alarm.slot >= WARM_UP_SLOTS)
        weeks = (len(each.amounts) - WARM_UP_SLOTS) / WEEK_SLOTS
        outcome.weeks[each.kind] = outcome.weeks.get(each.kind, 0.0) + weeks
        false_before = outcome.false_alerts.get(each.kind, 0)
        outcome.false_alerts[each.kind] = false_before + _false_alerts(each, said)
        for incident in each.incidents:
            _judge(outcome, each, incident, said)
    return outcome


def _false_alerts(series: Series, said: Sequence[int]) -> int:
    count = 0
    last = -DAY_SLOTS
    for slot in said:
        inside = any(one.first <= slot < one.end + GRACE_SLOTS for one in series.incidents)
        if not inside and slot - last >= DAY_SLOTS:
            count += 1
            last = slot
    return count


def _judge(outcome: Outcome, series: Series, incident: Incident, said: Sequence[int]) -> None:
    hits = [slot for slot in said if incident.first <= slot < incident.end + GRACE_SLOTS]
    outcome.found.setdefault(incident.kind, []).append(bool(hits))
    if incident.kind == "runaway":
        within = bool(hits) and hits[0] - incident.first < HOUR_SLOTS
        outcome.within_hour.append(within)
    if hits:
        outcome.delays_hours.append((hits[0] - incident.first) / HOUR_SLOTS)
    until = min(hits[0] if hits else incident.end, incident.end)
    usual = series.usual_per_day() * (until - incident.first) / DAY_SLOTS
    spent = sum(series.amounts[incident.first : until])
    outcome.overspend_usd.append(max(0.0, (spent - usual) / NANO))


# --- the corpus ------------------------------------------------------------------------------

PRODUCT_SETS: dict[str, RuleSet] = {
    "default": rule_set(DEFAULT),
    "guide_hourly": rule_set(GUIDE),
    "deviation_and_burn_rate": rule_set(CUMULATIVE, SPIKE, burn=(BURN,)),
}


def product_outcomes(series: Sequence[Series]) -> dict[str, Outcome]:
    """What the engine's rules find, by rule set; `deviation` is the last set without burn rate."""
    said = {name: run_engine(series, rules) for name, rules in PRODUCT_SETS.items()}
    # Rules of different types do not know of each other: one run shows both.
    said["deviation"] = {
        name: [alarm for alarm in alarms if parse_rule(alarm.rule).kind == RuleType.DEVIATION]
        for name, alarms in said["deviation_and_burn_rate"].items()
    }
    return {name: score_alarms(series, alarms) for name, alarms in said.items()}


def measure(keys_per_kind: int, seeds: Sequence[int] = REPORT_SEEDS) -> dict[str, list[Outcome]]:
    """Outcomes by detector, one per seed."""
    outcomes: dict[str, list[Outcome]] = {}
    scorers = river_scorers()
    tuning = [each for seed in TUNING_SEEDS for each in corpus(seed, keys_per_kind)]
    thresholds = {
        name: tuned_threshold([(each, scorer(hourly_usd(each))) for each in tuning])
        for name, scorer in scorers.items()
    }
    for seed in seeds:
        series = corpus(seed, keys_per_kind)
        for name, found in product_outcomes(series).items():
            outcomes.setdefault(name, []).append(found)
        for name, scorer in scorers.items():
            said = {
                each.name: alarms_above(scorer(hourly_usd(each)), thresholds[name])
                for each in series
            }
            outcomes.setdefault(name, []).append(score_alarms(series, said))
    return outcomes


def figures_of(outcomes: dict[str, list[Outcome]]) -> list[Figure]:
    """A round per seed."""
    figures = []
    for name, found in outcomes.items():
        figures += [
            Figure(f"{name}_recall", [one.recall for one in found], ""),
            Figure(f"{name}_false", [one.false_per_week for one in found], "/key/week"),
            Figure(f"{name}_false_worst", [one.false_worst for one in found], "/key/week"),
            Figure(f"{name}_runaway_1h", [one.runaway_within_hour for one in found], ""),
            Figure(
                f"{name}_delay",
                [statistics.median(one.delays_hours or [math.nan]) for one in found],
                "h",
            ),
            Figure(
                f"{name}_overspend", [statistics.mean(one.overspend_usd) for one in found], "USD"
            ),
        ]
        figures += [
            Figure(f"{name}_recall_{kind}", [one.recall_of(kind) for one in found], "")
            for kind in INCIDENTS
        ]
    return figures


TARGETS = (
    Target("deviation_and_burn_rate_recall", ">=", RECALL_MIN),
    Target("deviation_and_burn_rate_false", "<=", FALSE_MAX),
    Target("deviation_and_burn_rate_false_worst", "<=", FALSE_WORST_MAX),
    Target("deviation_and_burn_rate_runaway_1h", ">=", RUNAWAY_MIN),
)

# --- any labelled series -----------------------------------------------------------------------


def read_csv(path: Path) -> Series:
    """A labelled series as slots of five minutes; what falls into one slot is added up."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            (_seconds(row["time"]), _nano(row["value"]), row["label"])
            for row in csv.DictReader(file)
        ]
    if not rows:
        message = f"{path}: no rows"
        raise SystemExit(message)
    origin = min(at for at, _, _ in rows)
    # Days begin at midnight, as they do for the rules.
    origin -= origin % 86_400
    slots = (max(at for at, _, _ in rows) - origin) // SLOT_SECONDS + 1
    series = Series(path.stem, "csv", [0] * slots)
    labelled: set[int] = set()
    for at, amount, label in rows:
        slot = (at - origin) // SLOT_SECONDS
        series.amounts[slot] += amount
        if label.strip() in {"1", "1.0", "true", "True"}:
            labelled.add(slot)
    times = sorted({(at - origin) // SLOT_SECONDS for at, _, _ in rows})
    first = None
    for position, slot in enumerate(times):
        if slot in labelled and first is None:
            first = slot
        over = slot not in labelled or position == len(times) - 1
        if first is not None and over:
            series.incidents.append(Incident("labelled", first, slot + (slot in labelled)))
            first = None
    return series


def _seconds(text: str) -> int:
    try:
        return int(Decimal(text))
    except InvalidOperation:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _nano(text: str) -> int:
    value = Decimal(text or "0")
    return max(0, int(value * NANO)) if value.is_finite() else 0


def score_csv(path: Path) -> dict[str, dict[str, float]]:
    """Every detector's outcome on one labelled series."""
    series = read_csv(path)
    open_floors = {"min_impact_nano_usd": 0, "floor_nano_usd": 0}
    rules = {
        name: rule_set(*(rule.model_copy(update=open_floors) for rule in deviations))
        for name, deviations in (
            ("default", (DEFAULT,)),
            ("cumulative_and_spike", (CUMULATIVE, SPIKE)),
            ("spike", (SPIKE,)),
            ("seasonal", (SEASONAL,)),
            ("guide_hourly", (GUIDE,)),
        )
    }
    answer: dict[str, dict[str, float]] = {}
    for name, each in rules.items():
        answer[name] = _summary(score_alarms([series], run_engine([series], each, budgets=False)))
    values = hourly_usd(series)
    for name, scorer in river_scorers().items():
        scores = scorer(values)
        # No second series to tune on: the best that any threshold can do, a bound in its favour.
        threshold = tuned_threshold([(series, scores)])
        said = {series.name: alarms_above(scores, threshold)}
        answer[name] = _summary(score_alarms([series], said))
    return answer


def _summary(outcome: Outcome) -> dict[str, float]:
    return {
        "recall": round(outcome.recall, 3),
        "false_per_week": round(outcome.false_per_week, 3),
        "median_delay_hours": round(statistics.median(outcome.delays_hours or [-1.0]), 2),
        "windows": len(outcome.found.get("labelled", [])),
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keys", type=int, default=KEYS_PER_KIND, help="keys of each kind")
    parser.add_argument("--csv", type=Path, help="score a labelled series instead")
    arguments = parser.parse_args()
    if arguments.csv is not None:
        answer = score_csv(arguments.csv)
        if arguments.json:
            print(json.dumps({"name": "anomaly", "file": arguments.csv.name, "detectors": answer}))
            return
        for name, values in answer.items():
            shown = "  ".join(f"{key} {value:g}" for key, value in values.items())
            print(f"{name:<24} {shown}")
        return
    figures = figures_of(measure(arguments.keys))
    finish("anomaly", figures, TARGETS, json_flag=arguments.json)


if __name__ == "__main__":
    main()
