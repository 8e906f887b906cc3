"""One schedule: a seed, what it draws, and the checks along the way.

Each seed first draws how this world is (partitions, workers, clocks, how often what goes wrong:
most worlds are calm in most respects and wild in a few), then actions one after the other. Now and
then everything is repaired and drained, and the auditors compare.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from meterline.relay.decision import Admission, GateRequest
from meterline.relay.partitioning import Partitioner
from meterline.schemas.manual import BudgetOverride, ManualThrottle
from meterline.schemas.periods import DAY_MS, HOUR_MS, MINUTE_MS, WindowKind, parse_rfc3339, rfc3339
from meterline.schemas.policy import RULES_ID, Budget, Limits, RuleSet, ScopePolicy, object_id
from meterline.schemas.throttle import BreakerState
from meterline.schemas.usage import FUTURE_TOLERANCE_MS, UsageEvent
from meterline.streams.core import identity
from tests.simulation.control_audit import SKEW_MS, ControlAudit
from tests.simulation.control_side import Controller, RelayGate, Topics
from tests.simulation.ledger_audit import AuditError, LedgerAudit, Parcel, Sums
from tests.simulation.usage_side import (
    BATCH_EVENTS_MAX,
    LATE_MS_MAX,
    PENDING_EVENTS_MAX,
    Logs,
    Outbox,
    Worker,
    recovered_totals,
)
from tests.streams_model import CALENDAR, factory

STEPS = (20, 120)
KEYS = 4
USD = 1_000_000_000
ROUNDS_MAX = 50
"""A system that is left alone must come to rest: this many rounds are far more than it needs."""
# A quiet hour, the last minutes of an hour, day and month, the day that has 25 hours.
STARTS = (
    "2026-10-14T10:20:00Z",
    "2026-10-14T10:58:30Z",
    "2026-10-14T21:57:00Z",
    "2026-10-31T22:56:00Z",
    "2026-10-24T21:50:00Z",
)
SCOPES = (
    "organisation:acme",
    "department:acme/d-0",
    "department:acme/d-1",
    "key:acme/k-0",
    "key:acme/k-1",
)


TROUBLE = (
    *("seal", "late", "lose_ack", "resend", "overtake", "single", "repeat", "rubbish"),
    *("lose_disk", "kill_relay", "kill_worker", "stall_worker", "wake_zombie", "rebalance"),
    *("compact", "edge", "kill_controller", "second_controller", "clock", "policy", "long_time"),
    *("throttle", "override", "settle"),
)
"""What goes wrong, or is rare."""


class Outcome(NamedTuple):
    """What one schedule did."""

    seed: int
    actions: int
    events: int
    commands: int
    alerts: int
    overspend_nano_usd: int


class World:
    """Everything that one seed decides."""

    def __init__(self, seed: int, say: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.say = say
        self.drawn = drawn = random.Random(seed)
        self.now_ms = parse_rfc3339(drawn.choice(STARTS)) + drawn.randrange(MINUTE_MS)
        self.ledger_audit = LedgerAudit()
        self.control_audit = ControlAudit()
        self.logs = Logs(drawn.randint(1, 3), self.ledger_audit)
        self.topics = Topics(self.control_audit)
        self.horizon = drawn.choice((100_000, 100_000, 24))
        self.new_ledger = factory(ids_horizon=self.horizon, pending_events_max=PENDING_EVENTS_MAX)
        self.workers: list[Worker] = []
        self.zombies: list[Worker] = []
        self.controllers: list[Controller] = []
        self.gates = [
            RelayGate(f"relay-{number}", self.topics) for number in range(drawn.randint(1, 3))
        ]
        self.outboxes = {gate.name: Outbox(gate.name, self.logs) for gate in self.gates}
        self.partitioner = Partitioner(self.logs.partitions)
        self.rules = RuleSet(time_zone=CALENDAR.time_zone)
        self.policies: dict[str, ScopePolicy] = {}
        self.holds: dict[str, ManualThrottle] = {}
        self.overrides: dict[str, BudgetOverride] = {}
        self.events = 0
        self.actions = 0
        self._number = 0
        self._weights = self._draw_weights()
        self._begin()

    def _draw_weights(self) -> dict[str, float]:
        """How often each action comes: what goes wrong does so rarely, never, or all the time."""
        calm = {"request": 20, "send": 10, "count": 8, "flush": 4, "flush_step": 10, "decide": 8}
        calm |= {"carry_out": 8, "gate_read": 6, "time": 4}
        drawn = self.drawn
        wild = {name: drawn.choice((0.0, 0.0, 0.3, 1.0, 3.0)) for name in TROUBLE}
        wild["settle"] = min(wild["settle"], 0.3)
        # Otherwise hardly anything would happen within one window.
        wild["long_time"] /= 10
        for name in ("policy", "throttle", "override"):
            wild[name] /= 3
        wild["edge"] /= 2
        return {name: float(weight) for name, weight in calm.items()} | wild

    def _begin(self) -> None:
        self.topics.append_policy(RULES_ID, self.rules)
        for scope in self.drawn.sample(SCOPES, self.drawn.randint(1, len(SCOPES))):
            self.set_policy(scope)
        for _ in range(self.drawn.randint(1, 3)):
            self._new_worker()
        self._rebalance()
        self._new_controller()
        for gate in self.gates:
            gate.read(self.now_ms)

    # -- running

    def run(self) -> Outcome:
        """Play the schedule; AuditError if a promise was broken."""
        names = list(self._weights)
        weights = list(self._weights.values())
        for name in self.drawn.choices(names, weights, k=self.drawn.randint(*STEPS)):
            self.actions += 1
            self.now_ms += self.drawn.randrange(500)
            found: object = getattr(self, f"do_{name}")()
            if self.say is not None:
                self.say(f"{self.now_ms} {name} {'' if found is None else found}".rstrip())
        self.do_settle()
        return Outcome(
            self.seed,
            self.actions,
            self.events,
            len(self.topics.commands),
            len(self.topics.alerts),
            self.control_audit.overspend_nano_usd,
        )

    # -- requests and relays

    def _event(self, key: int, at_ms: int) -> UsageEvent:
        self._number += 1
        return UsageEvent(
            id=f"request-{self._number}-1",
            time_ms=at_ms,
            organisation="acme",
            department=f"d-{key % 2}",
            project="" if key else "p-0",
            user=f"u-{key}" if key % 2 else "",
            key=f"k-{key}",
            model="gpt-4.1" if self.drawn.random() < 0.9 else "unknown",
            input_tokens=self.drawn.randrange(50, 5_000),
            output_tokens=self.drawn.randrange(300),
        )

    def do_request(self) -> str:
        """Requests come to the relays; what their gates let pass is spent."""
        return "; ".join(self._request(0) for _ in range(self.drawn.randint(1, 5)))

    def do_late(self) -> str:
        """As a request, with a completion that was reported long afterwards."""
        return self._request(self.drawn.randrange(LATE_MS_MAX))

    def _request(self, late_ms: int) -> str:
        gate = self.drawn.choice(self.gates)
        key = self.drawn.randrange(KEYS)
        event = self._event(key, self.now_ms + gate.skew_ms - late_ms)
        request = GateRequest(
            "acme", event.key, event.model, event.department, event.project, event.user
        )
        decision = gate.decide(request, self.now_ms)
        if decision.admission is Admission.ADMIT:
            self.events += 1
            self.outboxes[gate.name].emit(self.partitioner.partition_of(event.key), event)
            cost = event.input_tokens * 1_000_003 + event.output_tokens * 7
            tokens = event.input_tokens + event.output_tokens
            gate.gate.settle(request, tokens, self.now_ms + gate.skew_ms, cost)
        return f"{gate.name} {event.key} {decision.admission.value} {decision.reason.value}"

    def _outbox(self) -> Outbox:
        return self.outboxes[self.drawn.choice(self.gates).name]

    def _partition(self) -> int:
        return self.drawn.randrange(self.logs.partitions)

    def do_seal(self) -> None:
        """50 ms are over."""
        self._outbox().seal(self._partition())

    def do_send(self) -> None:
        """A batch goes out, and its acknowledgement comes back."""
        outbox, partition = self._outbox(), self._partition()
        if self.drawn.random() < 0.5:
            outbox.seal(partition)
        outbox.send(partition, self.now_ms)

    def do_lose_ack(self) -> None:
        """The broker has the batch, the relay does not know."""
        self._outbox().send(self._partition(), self.now_ms, acknowledged=False)

    def do_overtake(self) -> None:
        """A batch passes the one before it."""
        self._outbox().overtake(self._partition(), self.now_ms)

    def do_resend(self) -> None:
        """A spool that was put back sends a batch which the broker has had for long."""
        partition = self._partition()
        sent = [stored.parcel for stored in self.logs.usage[partition] if stored.parcel.lane]
        if sent:
            self.logs.append_usage(self.drawn.choice(sent), self.now_ms)

    def do_lose_disk(self) -> None:
        """A relay's spool is lost: a permanent gap in its lanes."""
        outbox, partition = self._outbox(), self._partition()
        queue = outbox.queues.get(partition)
        if queue and queue[0].seq > 1:
            lost = queue.popleft()
            self.ledger_audit.owed -= {event.id for event in lost.events}

    def do_kill_relay(self) -> str:
        """A relay dies and comes back with its spool."""
        gate = self.drawn.choice(self.gates)
        gate.start()
        gate.read(self.now_ms)
        self.outboxes[gate.name].restart()
        return gate.name

    # -- foreign producers

    def _append_single(self, event: UsageEvent, partition: int) -> None:
        parcel = Parcel(partition, "", 0, (event,), msgspec.json.encode(event))
        self.logs.append_usage(parcel, self.now_ms)

    def do_single(self) -> None:
        """A single event of a foreign producer; one in six of a clock that is far ahead."""
        key = self.drawn.randrange(KEYS)
        event = self._event(key, self.now_ms)
        if self.drawn.random() < 0.17:
            ahead_ms = FUTURE_TOLERANCE_MS + 1 + self.drawn.randrange(HOUR_MS)
            event = msgspec.structs.replace(event, time_ms=self.now_ms + ahead_ms)
        self._append_single(event, self.partitioner.partition_of(event.key))

    def do_repeat(self) -> None:
        """A recent event again, by another way: the same bytes, or another body."""
        partition = self._partition()
        # Further back than the horizon an id may be forgotten, and is then new again.
        reach = min(self.horizon - BATCH_EVENTS_MAX, 60)
        recent = self.ledger_audit.in_order[partition][-reach:]
        if recent:
            event = self.drawn.choice(recent)
            if self.drawn.random() < 0.3:
                event = msgspec.structs.replace(event, output_tokens=event.output_tokens + 1)
            self._append_single(event, partition)

    def do_rubbish(self) -> None:
        """Bytes that are no event."""
        value = self.drawn.choice((b"{", b"nonsense", b"[[[", b'"text'))
        self.logs.append_usage(Parcel(self._partition(), "", 0, (), value), self.now_ms)

    # -- workers

    def _new_worker(self) -> Worker:
        self._number += 1
        worker = Worker(f"worker-{self._number}", self.logs, self.new_ledger)
        self.workers.append(worker)
        return worker

    def _rebalance(self) -> str:
        """Divide the partitions among the workers again."""
        owners = [self.drawn.choice(self.workers) for _ in range(self.logs.partitions)]
        for worker in self.workers:
            mine = {part for part, owner in enumerate(owners) if owner is worker}
            worker.assign(mine, self.drawn)
        return ", ".join(f"{part}:{owner.name}" for part, owner in enumerate(owners))

    def do_count(self) -> str:
        """A worker reads some messages."""
        worker = self.drawn.choice(self.workers)
        if not worker.next:
            return "nothing"
        partition = self.drawn.choice(sorted(worker.next))
        return f"{worker.name} {worker.apply(partition, self.drawn.randint(1, 6))}"

    def do_flush(self) -> str:
        """A worker begins a flush."""
        worker = self.drawn.choice(self.workers)
        worker.begin_flush(self.drawn)
        return worker.name

    def do_flush_step(self) -> str:
        """One effect of a flush that is under way."""
        worker = self.drawn.choice(self.workers)
        return f"{worker.name} {worker.step()}"

    def do_rebalance(self) -> str:
        """A worker joins or leaves, or only the coordinator is restless."""
        if len(self.workers) < 3 and self.drawn.random() < 0.5:
            self._new_worker()
        elif len(self.workers) > 1 and self.drawn.random() < 0.5:
            leaver = self.workers.pop()
            if self.drawn.random() < 0.5:
                leaver.drain(self.drawn)
        return self._rebalance()

    def _during_flush(self) -> Worker:
        """A worker that has done some of a flush, or nothing, or all."""
        worker = self.drawn.choice(self.workers)
        if self.drawn.random() < 0.7:
            for partition in worker.next:
                worker.apply(partition, self.drawn.randint(0, 4))
            worker.begin_flush(self.drawn)
            for _ in range(self.drawn.randint(0, len(worker.steps))):
                worker.step()
        return worker

    def do_kill_worker(self) -> str:
        """A worker dies between two effects; another takes its place."""
        dead = self._during_flush()
        self.workers.remove(dead)
        self._new_worker()
        return f"{dead.name}; {self._rebalance()}"

    def do_stall_worker(self) -> str:
        """A worker is stopped during a flush past its session; the others take over."""
        stalled = self._during_flush()
        self.workers.remove(stalled)
        stalled.lose_group()
        self.zombies.append(stalled)
        self._new_worker()
        return f"{stalled.name}; {self._rebalance()}"

    def do_wake_zombie(self) -> str:
        """A stopped worker continues: what it had begun to write is written, then it fences itself."""
        if not self.zombies:
            return "none"
        zombie = self.zombies.pop(self.drawn.randrange(len(self.zombies)))
        for _ in range(self.drawn.randint(0, len(zombie.steps))):
            zombie.step()
        return zombie.name

    def do_compact(self) -> None:
        """The broker compacts a partition of the changelog."""
        self.logs.compact(self._partition())

    # -- controllers and gates

    def _new_controller(self) -> Controller:
        self._number += 1
        controller = Controller(self._number, self.logs, self.topics, self.now_ms)
        self.controllers.append(controller)
        return controller

    def do_decide(self) -> str:
        """A controller reads and decides, once it has carried out what it decided before."""
        controller = self.drawn.choice(self.controllers)
        if not controller.effects:
            controller.round(self.now_ms, self.drawn)
        return f"controller-{controller.number} {len(controller.effects)} effects"

    def do_carry_out(self) -> str:
        """One effect of a controller."""
        controller = self.drawn.choice(self.controllers)
        done = controller.step()
        if controller.fenced:
            self.controllers.remove(controller)
            if not self.controllers:
                self.now_ms += 1_000
                self._new_controller()
        return f"controller-{controller.number} {done}"

    def do_kill_controller(self) -> None:
        """A controller dies between two effects; its successor starts from the topics."""
        self.controllers.remove(self.drawn.choice(self.controllers))
        if not self.controllers:
            # No process runs while a lease or a period ends.
            if self.drawn.random() < 0.4:
                self.do_edge()
            self.now_ms += 1_000
            self._new_controller()

    def do_second_controller(self) -> None:
        """An operator starts a second one; the first learns of it when it reads."""
        if len(self.controllers) < 3:
            self.now_ms += self.drawn.choice((0, 1_000))
            self._new_controller()

    def do_gate_read(self) -> str:
        """A gate takes some commands over."""
        gate = self.drawn.choice(self.gates)
        gate.read(self.now_ms, self.drawn.randint(0, 5))
        return f"{gate.name} at {gate.commands_read}"

    def do_clock(self) -> str:
        """A relay's clock is set, forwards or back, within what relays are trusted to have."""
        gate = self.drawn.choice(self.gates)
        gate.skew_ms = self.drawn.randint(-SKEW_MS, SKEW_MS)
        return f"{gate.name} {gate.skew_ms} ms"

    def do_policy(self) -> str:
        """An operator changes a scope's policy or takes it away."""
        scope = self.drawn.choice(SCOPES)
        if scope in self.policies and self.drawn.random() < 0.2:
            del self.policies[scope]
            self.topics.append_policy(scope, None)
            return f"{scope} deleted"
        self.set_policy(scope)
        return scope

    def set_policy(self, scope: str) -> None:
        """Other budgets and limits, under a new budget version."""
        drawn = self.drawn
        self._number += 1

        def maybe(low: int, unit: int) -> int | None:
            """A third of the bounds is reached by a few requests, a third by many."""
            return drawn.choice((1, 5, 25)) * low * unit if drawn.random() < 0.4 else None

        policy = ScopePolicy(
            scope=scope,
            version=self._number,
            budget_version=self._number,
            budget=Budget(
                month_nano_usd=maybe(drawn.randint(5, 15), USD),
                day_nano_usd=maybe(drawn.randint(5, 12), USD),
            ),
            limits=Limits(
                requests_per_minute=drawn.choice((None, None, 30)),
                hour_spend_nano_usd=maybe(drawn.randint(4, 9), USD),
                day_tokens=maybe(drawn.randint(4, 14), 1_000),
            ),
        )
        self.policies[scope] = policy
        self.topics.append_policy(scope, policy)

    # -- orders

    def do_throttle(self) -> str:
        """A person throttles or blocks a scope, or lifts that before its end."""
        scope = self.drawn.choice(SCOPES)
        known = self.holds.get(scope)
        if known is not None and known.holds(self.now_ms) and self.drawn.random() < 0.5:
            hold = known.model_copy(update={"until_ms": self.now_ms})
        else:
            hold = ManualThrottle(
                scope=scope,
                admit_percent=self.drawn.choice((0, 10, 50)),
                since_ms=self.now_ms,
                until_ms=self.now_ms + self.drawn.choice((MINUTE_MS, HOUR_MS, DAY_MS)),
                author="ann",
                reason="a test",
            )
        self.holds[scope] = hold
        self.topics.append_policy(object_id(hold), hold)
        return f"{scope} {hold.admit_percent} % until {hold.until_ms}"

    def do_override(self) -> str:
        """A person gives a scope other budgets for a while."""
        scope = self.drawn.choice(SCOPES)
        known = self.overrides.get(scope)
        override = BudgetOverride(
            version=known.version + 1 if known is not None else 1,
            scope=scope,
            month_nano_usd=self.drawn.randint(5, 300) * USD,
            day_nano_usd=self.drawn.choice((None, self.drawn.randint(5, 200) * USD)),
            since_ms=self.now_ms,
            until_ms=self.now_ms + self.drawn.choice((MINUTE_MS, HOUR_MS, DAY_MS)),
            author="ann",
            reason="a test",
        )
        self.overrides[scope] = override
        self.topics.append_policy(object_id(override), override)
        return f"{scope} until {override.until_ms}"

    def _holding(self) -> dict[str, ScopePolicy]:
        """The policies with the budgets that hold now, computed without the engine."""
        found: dict[str, ScopePolicy] = {}
        for scope, policy in self.policies.items():
            override = self.overrides.get(scope)
            month, day = policy.budget.month_nano_usd, policy.budget.day_nano_usd
            version = policy.budget_version
            if override is not None:
                holds = override.since_ms <= self.now_ms < override.until_ms
                version += 1_000_000 * (2 * override.version - holds)
                if holds and month is not None and override.month_nano_usd is not None:
                    month = override.month_nano_usd
                if holds and day is not None and override.day_nano_usd is not None:
                    day = override.day_nano_usd
            budget = Budget(month_nano_usd=month, day_nano_usd=day)
            update = {"budget": budget, "budget_version": version}
            found[scope] = policy.model_copy(update=update)
        return found

    # -- time

    def do_time(self) -> None:
        """Seconds to minutes."""
        self.now_ms += self.drawn.choice((1_000, 20_000, 70_000, 400_000))

    def do_edge(self) -> str:
        """To just before or after the end of a lease, hour, day or month."""
        edges = [window.end_ms for window in CALENDAR.windows(self.now_ms)[1:]]
        edges += [command.expires_at_ms for command in self.control_audit.newest.values()]
        ahead = [edge for edge in edges if edge > self.now_ms]
        # Not every time to the month's end: most of what happens would be over.
        edge_ms = min(ahead) if self.drawn.random() < 0.8 else self.drawn.choice(ahead)
        self.now_ms = max(self.now_ms, edge_ms + self.drawn.randint(-3_000, SKEW_MS + 3_000))
        return rfc3339(self.now_ms)

    def do_long_time(self) -> None:
        """Hours to days: windows end, leases end, entries expire."""
        self.now_ms += self.drawn.choice((HOUR_MS, 4 * HOUR_MS, DAY_MS, 6 * DAY_MS, 20 * DAY_MS))

    # -- coming to rest

    def do_settle(self) -> str:
        """Repair and drain everything, then compare with the truth."""
        for zombie in self.zombies:
            while zombie.steps:
                zombie.step()
        self.zombies.clear()
        for outbox in self.outboxes.values():
            outbox.drain(self.now_ms)
        for worker in self.workers:
            worker.drain(self.drawn)
        self.ledger_audit.settled(set())
        self.ledger_audit.compare(
            recovered_totals(self.logs, self.new_ledger), "the changelog's last words have"
        )
        self._settle_control()
        return f"{self.events} events"

    def _settle_control(self) -> None:
        for _ in range(ROUNDS_MAX):
            if not self._quiet_round():
                break
        else:
            raise AuditError(f"controllers do not come to rest in {ROUNDS_MAX} rounds")
        policies = self._holding()
        for scope in SCOPES:
            spent = {
                window.kind: self.ledger_audit.total(
                    scope, window.kind, window.start_ms, self.logs.partitions
                )
                for window in CALENDAR.windows(self.now_ms)
            }
            policy = policies.get(scope, ScopePolicy(scope=scope))
            by_hand = self._by_hand(scope)
            self.control_audit.settled(policy, spent, self.rules, self.now_ms, by_hand)
            if scope in policies:
                self._check_belief(scope, spent)
        self.control_audit.check_firing(policies, self.now_ms)
        self._check_last_words()
        for gate in self.gates:
            gate.read(self.now_ms)
            self._check_gate(gate)

    def _by_hand(self, scope: str) -> BreakerState:
        """What a person wants of a scope now."""
        hold = self.holds.get(scope)
        if hold is None or not hold.since_ms <= self.now_ms < hold.until_ms:
            return BreakerState.CLOSED
        return BreakerState.THROTTLED if hold.admit_percent else BreakerState.OPEN

    def _quiet_round(self) -> bool:
        """Every controller reads to the end and carries everything out; whether any had to."""
        moved = False
        for controller in list(self.controllers):
            moved |= bool(controller.effects)
            while controller.effects and not controller.fenced:
                controller.step()
            if not controller.fenced:
                controller.round(self.now_ms, self.drawn, all_of_it=True)
                moved |= bool(controller.effects)
            if controller.fenced:
                moved = True
                self.controllers.remove(controller)
        if not self.controllers:
            self.now_ms += 1_000
            self._new_controller()
            moved = True
        return moved

    def _check_belief(self, scope: str, spent: dict[WindowKind, Sums]) -> None:
        """The controller in charge knows the totals of the current windows to the nano-dollar."""
        believed = {
            (total.kind, total.start_ms): (total.cost_nano_usd, total.tokens)
            for total in self.controllers[-1].totals.of(scope)
        }
        for window in CALENDAR.windows(self.now_ms)[1:]:
            cost, input_tokens, output_tokens, _, _ = spent[window.kind]
            found = believed.get((window.kind, window.start_ms), (0, 0))
            if found != (cost, input_tokens + output_tokens):
                raise AuditError(f"{scope} {window.kind}: alerting believes {found}, true {cost}")

    def _check_last_words(self) -> None:
        """Compaction keeps the last command of a scope: it must be the newest."""
        last = {command.scope: command for command in self.topics.commands}
        for scope, command in last.items():
            newest = self.control_audit.newest[scope]
            if command.version != newest.version:
                raise AuditError(f"{scope}: last on the topic {command.version}, not the newest")

    def _check_gate(self, gate: RelayGate) -> None:
        """A gate that has read everything stands where the newest commands say."""
        for scope, command in self.control_audit.newest.items():
            if gate.gate.version(scope) != command.version:
                raise AuditError(f"{gate.name} {scope}: at {gate.gate.version(scope)}")
        for key in range(KEYS):
            request = GateRequest("acme", f"k-{key}", "gpt-4.1", f"d-{key % 2}")
            decision = gate.decide(request, self.now_ms)
            scopes = ("organisation:acme", f"department:acme/d-{key % 2}", f"key:acme/k-{key}")
            newest = [self.control_audit.newest.get(scope) for scope in scopes]
            is_open = any(one is not None and one.state is BreakerState.OPEN for one in newest)
            if is_open is not (decision.reason.value == "blocked"):
                raise AuditError(f"{gate.name} k-{key}: {decision}, open is {is_open}")


@contextmanager
def small_ring() -> Iterator[None]:
    """The ring of ids with slots of a few ids, so that it goes round within one schedule."""
    names = {"SLOT_IDS_MIN": 4, "SLOT_IDS_MAX": 8, "EVENTS_PER_BATCH_MAX": BATCH_EVENTS_MAX}
    before = {name: getattr(identity, name) for name in names}
    try:
        for name, value in names.items():
            setattr(identity, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(identity, name, value)


def play(seed: int, say: Callable[[str], None] | None = None) -> Outcome:
    """Run one schedule."""
    with small_ring():
        return World(seed, say).run()
