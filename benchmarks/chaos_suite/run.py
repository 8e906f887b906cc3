"""One chaos run: start, load, strike, let it come to rest, compare."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks import Webhook

from benchmarks.chaos_suite import audit
from benchmarks.chaos_suite.journal import Entry, Kind, read_journal, truth_of
from benchmarks.chaos_suite.pipeline import Pipeline
from benchmarks.chaos_suite.policy import document, load_policy
from benchmarks.chaos_suite.relay_node import NodeOptions
from benchmarks.chaos_suite.relays import Relay
from benchmarks.chaos_suite.schedule import Schedule
from benchmarks.chaos_suite.topics import Topics, read_topics
from meterline.app.clock import now_ms
from meterline.app.settings import Settings
from meterline.app.wiring import catalogue, clickhouse_config, kafka_config, pipeline
from meterline.backends.clickhouse.client import Client
from meterline.control.store import publish, read_policies
from meterline.operations.policy import planned_by_file
from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.truth import RunFacts, Truth, write_truth
from meterline.operations.verify import VerifyOptions, VerifyReport, run_verify
from meterline.schemas.periods import HOUR_MS, Calendar
from meterline.schemas.policy import ScopePolicy
from tests.webhook_receiver import SECRET, Received, Receiver, running_receiver

ORGANISATION = "chaos"
KEYS, DEPARTMENTS, RELAYS = 24, 5, 2
SHARE = 0.01
"""Of events: duplicates, late ones, malformed ones, each."""
SECONDS_PER_CYCLE = 12.0
"""About, for the sizes of the budgets."""
VERIFY_SECONDS_MAX = 300.0
BELIEF_SECONDS_MAX = 180.0
READ_SECONDS_MAX = 60.0
POLL_SECONDS = 0.5
# The alerts worker reads a snapshot within milliseconds of the streams' flush.
QUIET_SECONDS = 2.0
# Belief about an hour is asked for well inside it.
HOUR_END_MS = 20_000
WARM_UP_SECONDS = 2.0
DIFFERENCES_SHOWN_MAX = 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What to run."""

    schedule: Schedule
    per_second: float = 300.0
    """Events per second over all relays."""
    verbose: bool = False


@dataclass
class Outcome:
    """What was found."""

    seconds: float = 0.0
    events: int = 0
    malformed: int = 0
    duplicates: int = 0
    recorded_again: int = 0
    """Events that restarted relays recorded once more, because they could not know."""
    refused: int = 0
    """Requests that a gate refused."""
    kills: int = 0
    by_victim: dict[str, int] = field(default_factory=dict)
    crashes_reached: int = 0
    crashes_missed: list[str] = field(default_factory=list)
    alerts: int = 0
    deliveries: int = 0
    deliveries_repeated: int = 0
    beliefs: int = 0
    commands: int = 0
    verify: VerifyReport | None = None
    differences: dict[str, list[str]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.verify is not None and self.verify.equal and not any(self.differences.values())


class ChaosRun:
    """The parts of one run, and what they found."""

    def __init__(self, options: ChaosOptions, folder: Path, receiver: Receiver, say: Say) -> None:
        self._options = options
        self._folder = folder
        self._receiver = receiver
        self._say = say
        self._seed = options.schedule.seed
        self._run_id = f"c{self._seed}{os.getpid():x}"
        self._assigner = self._new_assigner()
        self._prices = catalogue(Settings())
        self._started_ms = now_ms()
        self.outcome = Outcome()

    def go(self) -> Outcome:
        """All of it."""
        begun = time.monotonic()
        policy = self._write_policy(loaded=True)
        kafka = self._options.schedule.kafka
        with (self._folder / "pipeline.log").open("w", encoding="utf-8") as log:
            pipeline = Pipeline(self._folder, kafka, policy, log)
            try:
                pipeline.start()
                self._start_relays(pipeline)
                self._say("everything runs")
                self._strike_all(pipeline)
                self._come_to_rest(pipeline)
                self._compare(pipeline)
            finally:
                pipeline.close()
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _new_assigner(self) -> Assigner:
        return Assigner(
            organisation=ORGANISATION, keys=KEYS, departments=DEPARTMENTS, seed=self._seed
        )

    def _write_policy(self, *, loaded: bool) -> Path:
        cycles = len(self._options.schedule.rounds)
        events = int(self._options.per_second * SECONDS_PER_CYCLE * cycles)
        budgets = load_policy(self._new_assigner(), self._prices, events, self._seed)
        path = self._folder / ("load.yaml" if loaded else "belief.yaml")
        text = document(
            ORGANISATION,
            self._assigner,
            self._receiver.base_url + "/hook",
            budgets if loaded else None,
        )
        path.write_text(text, encoding="utf-8")
        return path

    def _start_relays(self, pipeline: Pipeline) -> None:
        for index in range(RELAYS):
            pipeline.add_relay(
                Relay(
                    NodeOptions(
                        name=f"relay-{index + 1}",
                        index=index,
                        relays=RELAYS,
                        seed=self._seed,
                        run_id=self._run_id,
                        organisation=ORGANISATION,
                        keys=KEYS,
                        departments=DEPARTMENTS,
                        per_second=self._options.per_second / RELAYS,
                        bootstrap=pipeline.stack.settings.kafka.bootstrap,
                        embedded=pipeline.kafka == "embedded",
                        folder=str(self._folder),
                        duplicates=SHARE,
                        late=SHARE,
                        malformed=SHARE,
                    )
                )
            )
        for relay in pipeline.relays.values():
            relay.wait_ready()
        time.sleep(WARM_UP_SECONDS)

    def _strike_all(self, pipeline: Pipeline) -> None:
        struck: Counter[str] = Counter()
        for number, one in enumerate(self._options.schedule.rounds, start=1):
            for strike in one.strikes:
                time.sleep(strike.after_seconds)
                self._say(f"cycle {number}: {strike.way.value} {strike.victim} {strike.point}")
                missed = len(pipeline.crashes_missed)
                pipeline.strike(strike)
                if len(pipeline.crashes_missed) > missed:
                    self._say(f"cycle {number}: {strike.point} was not passed; killed at random")
                struck[strike.victim] += 1
                if strike.settle:
                    pipeline.wait_up()
        self.outcome.kills = struck.total()
        self.outcome.by_victim = dict(sorted(struck.items()))
        self.outcome.crashes_reached = pipeline.crashes_reached
        self.outcome.crashes_missed = pipeline.crashes_missed

    def _come_to_rest(self, pipeline: Pipeline) -> None:
        pipeline.wait_up()
        for relay in pipeline.relays.values():
            stopped = relay.ask("stop", "stopped")
            assert stopped["drained"], f"{relay.name} could not deliver what it has"
            self.outcome.refused += stopped["refused"]
            self.outcome.duplicates += stopped["duplicates"]
            self.outcome.recorded_again += relay.recorded_again
        self._say("the load has ended; comparing")

    def _compare(self, pipeline: Pipeline) -> None:
        settings = pipeline.stack.settings
        kafka = kafka_config(settings, "chaos")
        journal = self._journal()
        truth = self._truth(journal)
        self._verify(truth, settings)
        self._say("totals compared; asking the alerts worker what it believes")
        policies = read_policies(kafka, READ_SECONDS_MAX)
        budgets = {
            item.scope: item.budget.month_nano_usd
            for item in policies.values()
            if isinstance(item, ScopePolicy) and item.budget.month_nano_usd is not None
        }
        time.sleep(QUIET_SECONDS)
        wanted = self._ask_for_belief(settings, truth)
        topics, differences = self._wait_for_agreement(pipeline, wanted)
        self._say("belief, deliveries and gates compared")
        calendar = Calendar(truth.time_zone)
        month = calendar.period(calendar.windows(now_ms())[-1])
        differences["letters"] = list(
            audit.dead_letters(journal, topics, self._stored_dead_letters(settings, topics))
        )
        differences["thresholds"] = list(audit.thresholds(truth, budgets, topics.alerts, month))
        outcome = self.outcome
        outcome.differences = differences
        outcome.events = truth.events
        outcome.malformed = truth.malformed
        outcome.alerts = len(audit.unique(topics.alerts))
        outcome.beliefs = len(wanted)
        outcome.commands = len(topics.commands)
        outcome.deliveries = len(self._received())
        outcome.deliveries_repeated = len(self._receiver.requests) - outcome.deliveries

    def _journal(self) -> list[Entry]:
        return [
            entry
            for index in range(RELAYS)
            for entry in read_journal(self._folder / f"relay-{index + 1}.journal")
        ]

    def _truth(self, journal: list[Entry]) -> Truth:
        malformed = sum(entry.reason is not None for entry in journal)
        facts = RunFacts(
            run_id=self._run_id,
            seed=self._seed,
            started_ms=self._started_ms,
            ended_ms=now_ms(),
            complete=True,
            duplicates=self.outcome.duplicates,
            late=0,
            malformed=malformed,
            invalid=sum(entry.kind is Kind.INVALID for entry in journal),
        )
        return truth_of(journal, facts, self._prices, Calendar("UTC"))

    def _verify(self, truth: Truth, settings: Settings) -> None:
        path = self._folder / "truth.json"
        write_truth(path, truth)
        self.outcome.verify = run_verify(
            VerifyOptions(path, VERIFY_SECONDS_MAX),
            kafka_config(settings, "chaos-verify"),
            clickhouse_config(settings),
            now_ms,
        )

    def _ask_for_belief(self, settings: Settings, truth: Truth) -> dict[tuple[str, str, str], int]:
        left_ms = HOUR_MS - now_ms() % HOUR_MS
        if left_ms < HOUR_END_MS:
            time.sleep(left_ms / 1000 + 1)
        changes = planned_by_file(pipeline(settings), self._write_policy(loaded=False))
        publish(
            kafka_config(settings, "chaos-policy"),
            changes,
            actor="chaos",
            reason="say what you believe",
            at_ms=now_ms(),
        )
        return audit.expected_belief(truth, now_ms())

    def _wait_for_agreement(
        self, pipeline: Pipeline, wanted: dict[tuple[str, str, str], int]
    ) -> tuple[Topics, dict[str, list[str]]]:
        """Read until belief, deliveries and gates agree, or the time is over."""
        kafka = kafka_config(pipeline.stack.settings, "chaos-read")
        deadline = time.monotonic() + BELIEF_SECONDS_MAX
        while True:
            topics = read_topics(kafka, f"{self._run_id}-broken-")
            gates = {
                relay.name: {
                    scope: (int(version[0]), int(version[1]))
                    for scope, version in relay.ask("versions", "versions")["scopes"].items()
                }
                for relay in pipeline.relays.values()
            }
            differences = {
                "belief": list(audit.belief(wanted, audit.believed(topics.alerts))),
                "deliveries": list(audit.deliveries(topics.alerts, self._received())),
                "gates": list(audit.stale(topics, gates)),
            }
            if not any(differences.values()) or time.monotonic() > deadline:
                return topics, differences
            time.sleep(POLL_SECONDS)

    def _received(self) -> dict[str, set[bytes]]:
        """Bodies by webhook-id; the signature of each is checked, whatever its age by now."""
        received: defaultdict[str, set[bytes]] = defaultdict(set)
        for request in list(self._receiver.requests):
            assert signed(request), request.headers
            received[request.headers["webhook-id"]].add(request.body)
        return received

    def _stored_dead_letters(self, settings: Settings, topics: Topics) -> set[audit.LetterRow]:
        client = Client(clickhouse_config(settings))
        deadline = time.monotonic() + BELIEF_SECONDS_MAX
        try:
            while True:
                rows = client.query(
                    "SELECT source_partition, source_offset, source_index, reason "
                    "FROM dead_letters FINAL"
                )
                if len(rows) >= len(topics.dead_letters) or time.monotonic() > deadline:
                    return {(int(a), int(b), int(c), str(d)) for a, b, c, d in rows}
                time.sleep(POLL_SECONDS)
        finally:
            client.close()


def signed(request: Received) -> bool:
    """Whether the request carries the signature of its id, time and body."""
    headers = request.headers
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    wanted = Webhook(SECRET).sign(headers["webhook-id"], at, request.body.decode())
    return wanted in headers["webhook-signature"].split()


def run_chaos(options: ChaosOptions, folder: Path) -> Outcome:
    """Run it in an empty folder, which keeps the logs."""

    begun = time.monotonic()

    def say(line: str) -> None:
        if options.verbose:
            sys.stderr.write(f"{time.monotonic() - begun:6.1f} s  {line}\n")
            sys.stderr.flush()

    with running_receiver() as receiver:
        return ChaosRun(options, folder, receiver, say).go()
