"""The alerts worker: reads snapshots and policy, runs the engine, carries out its effects.

    start   read control.policies, throttle.commands, alerts, spend.snapshots to their ends
            -> restore -> effects of what differs
    loop    poll -> decode -> step -> carry out

Effects, in this order, each with its guarantee:
    1. throttle commands, flushed: a relay knows before on-call does. Repeating one is harmless,
       because it is the full state of its scope under the same (epoch, seq).
    2. alert records, flushed: an alert names the commands given for its cause. Repeating one is
       harmless, because its id is made of what it is about.
There is no third step. Nothing is committed, because nothing but these topics is kept: a
worker killed between any two effects reads them back at its next start, and whatever is missing
is what then differs between published and right.

One alerts worker is in charge. Each start takes a greater epoch; a worker that sees a greater one
on throttle.commands than its own has been replaced and stops. What it still writes before it sees
that, its successor reads and answers for: commands are published again, alerts are taken over or
resolved (`alerting.core.takeover`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from meterline.alerting.core import engine
from meterline.alerting.core.pipeline_alerts import inspect
from meterline.alerting.core.restore import RestoredState, restore
from meterline.alerting.core.state import (
    AlertSeen,
    CommandSeen,
    Effect,
    Fenced,
    HealthChecksSeen,
    Observation,
    PolicyChanged,
    PublishAlert,
    PublishThrottle,
    State,
    Tick,
)
from meterline.alerting.core.takeover import ForeignAlerts
from meterline.alerting.core.totals import WindowKey
from meterline.alerting.health_checks import HealthCheckThread
from meterline.alerting.rules.registry import RULES
from meterline.alerting.settings import AlertingSettings
from meterline.alerting.top_contributors import ContributorStore, explained
from meterline.backends.failpoints import AlertingFailpoint, Failpoints
from meterline.backends.kafka.config import KafkaConfig, Record
from meterline.backends.kafka.errors import BrokerUnavailableError, KafkaClientError
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.alert import Alert, AlertError, decode_alert, encode_alert
from meterline.schemas.clock import Clock
from meterline.schemas.errors import MeterlineError
from meterline.schemas.manual import subject_of
from meterline.schemas.metrics import Meter, Metric
from meterline.schemas.periods import WindowKind
from meterline.schemas.policy import PolicyObject, PolicyRecordError, RuleSet, decode_policy
from meterline.schemas.spend import SnapshotError, decode_snapshot
from meterline.schemas.throttle import ThrottleError, decode_command, encode_command
from meterline.schemas.topics import Topic

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_FENCED = 3
# Records folded into one round of decisions: sums are decided on once per round, so a backlog
# costs few decisions, and 5,000 decode in about 20 ms, which bounds the delay of the first.
RECORDS_PER_ROUND_MAX = 5_000
# Each attempt already lasts the producer's whole delivery timeout with its own retries.
PUBLISH_ATTEMPTS_MAX = 3
# Windows that ended are few per hour; dropping them every minute costs nothing.
DROP_ENDED_EVERY_MS = 60_000

_log = structlog.get_logger()

_FOLLOWED = (Topic.POLICIES, Topic.THROTTLE_COMMANDS, Topic.ALERTS, Topic.SPEND_SNAPSHOTS)


class _ReplacedError(MeterlineError):
    """Another alerts worker is in charge."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the worker touches outside itself."""

    producer: Producer
    clock: Clock
    meter: Meter
    failpoints: Failpoints[AlertingFailpoint]
    store: ContributorStore | None = None
    """ClickHouse, for the top contributors of an alert; without it alerts go out without them."""


class _Outside(NamedTuple):
    clock: Clock
    meter: Meter
    store: ContributorStore | None


def run_alerts(
    settings: AlertingSettings,
    kafka: KafkaConfig,
    clock: Clock,
    meter: Meter,
    stop: threading.Event,
    store: ContributorStore | None = None,
) -> int:
    """Run until `stop` is set.

    Returns:
        EXIT_OK after `stop`; EXIT_FAILED if the broker could not be reached or refused for longer
        than the bounds allow; EXIT_FENCED if another worker has taken over.
    """
    try:
        _run(settings, kafka, _Outside(clock, meter, store), stop)
    except _ReplacedError as error:
        _log.error("alerts.replaced", reason=str(error))
        return EXIT_FENCED
    except KafkaClientError as error:
        _log.error("alerts.stopped", reason=str(error))
        return EXIT_FAILED
    finally:
        meter.gauge(Metric.READY, 0)
    return EXIT_OK


def _run(
    settings: AlertingSettings,
    kafka: KafkaConfig,
    outside: _Outside,
    stop: threading.Event,
) -> None:
    clock, meter, store = outside
    # A command does not wait for others to share its batch: a late throttle costs money.
    producer = Producer(kafka, linger_ms=0)
    failpoints = Failpoints(settings.crash_at, AlertingFailpoint)
    dependencies = Dependencies(producer, clock, meter, failpoints, store)
    checks = HealthCheckThread(kafka, settings.streams_group, clock)
    try:
        reader = TopicReader(kafka, _FOLLOWED)
        try:
            restored = _read(settings, reader, meter)
            state, effects = restore(restored, clock(), complete=True)
            foreign = ForeignAlerts()
            _carry_out(settings, dependencies, foreign, effects)
            _log.info(
                "alerts.ready",
                epoch=state.epoch,
                scopes=len(state.scopes),
                windows=len(restored.totals),
                restricted=len(state.active),
            )
            meter.gauge(Metric.READY, 1)
            checks.start()
            _follow(settings, dependencies, reader, _Known(state, restored, checks, foreign), stop)
        finally:
            reader.close()
    finally:
        checks.stop()
        producer.close()


def _read(settings: AlertingSettings, reader: TopicReader, meter: Meter) -> RestoredState:
    """Everything that the topics hold."""
    restored = RestoredState()
    for record in reader.read_to_end(settings.start_timeout_seconds):
        _replay(restored, record, meter)
    return restored


def _replay(restored: RestoredState, record: Record, meter: Meter) -> None:
    try:
        match record.topic:
            case Topic.POLICIES:
                restored.add_policy(_text(record.key), _policy(record))
            case Topic.THROTTLE_COMMANDS if record.value:
                restored.add_command(decode_command(record.value))
            case Topic.ALERTS if record.value:
                restored.add_alert(decode_alert(record.value))
            case Topic.SPEND_SNAPSHOTS:
                restored.add_state(record.key, record.value)
                snapshot = decode_snapshot(record.key, record.value)
                if snapshot is not None:
                    restored.totals.apply(snapshot)
            case _:
                pass  # a record without a value where it means nothing
    except (PolicyRecordError, ThrottleError, AlertError, SnapshotError) as error:
        _refuse(record, error, meter)


def _follow(
    settings: AlertingSettings,
    dependencies: Dependencies,
    reader: TopicReader,
    known: _Known,
    stop: threading.Event,
) -> None:
    state, totals = known.state, known.restored.totals
    drop_at_ms = 0
    while not stop.is_set():
        now_ms = dependencies.clock()
        records = reader.poll(_wait(settings, state, now_ms), RECORDS_PER_ROUND_MAX)
        now_ms = dependencies.clock()
        if now_ms >= drop_at_ms:
            totals.drop_ended(now_ms)
            drop_at_ms = now_ms + DROP_ENDED_EVERY_MS
        effects: list[Effect] = []
        for observation in _observations(settings, records, reader, known, dependencies):
            state, found = engine.step(state, observation, now_ms)
            effects += found
        inspected = _inspected(known, now_ms)
        if inspected is not None:
            state, found = engine.step(state, inspected, now_ms)
            effects += found
        _carry_out(settings, dependencies, known.foreign, engine.ordered(effects))
        dependencies.meter.gauge(Metric.HEARTBEAT_MS, now_ms)
        if records:
            dependencies.meter.count(Metric.MESSAGES, len(records))
            dependencies.meter.gauge(Metric.LAST_EVENT_MS, totals.last_event_ms)


@dataclass(slots=True)
class _Known:
    """What the loop works with."""

    state: State
    restored: RestoredState
    checks: HealthCheckThread
    foreign: ForeignAlerts


def _inspected(known: _Known, now_ms: int) -> HealthChecksSeen | None:
    """The newest round of health checks, if there is one."""
    found = known.checks.take()
    if found is None:
        return None
    hour = known.state.windows[WindowKind.HOUR]
    restored = known.restored
    return inspect(restored.totals, restored.lanes(), found, hour.start_ms, now_ms)


def _wait(settings: AlertingSettings, state: State, now_ms: int) -> float:
    """Until the next timer, but no longer than the poll's bound."""
    return min(settings.poll_seconds, max(0, engine.next_timer(state) - now_ms) / 1000)


def _observations(
    settings: AlertingSettings,
    records: Iterable[Record],
    reader: TopicReader,
    known: _Known,
    dependencies: Dependencies,
) -> Iterator[Observation]:
    """Decode one round; commands first (am I still in charge?), then policy, alerts, spend.

    "Known complete" means that this worker has read spend.snapshots to its end as the last fetch
    reported it: it says nothing of events that streams have yet to fold, whose absence only makes
    totals too low.
    """
    taken = _Round()
    totals = known.restored.totals
    taken.take_all(records, known, dependencies.meter)
    if taken.has_foreign_alerts:
        # Rare: another controller writes. What it had read when it wrote that, policy above all,
        # must be known before its record is applied.
        taken.take_all(
            reader.read_to_end(settings.start_timeout_seconds), known, dependencies.meter
        )
    yield from taken.commands
    for object_id, item in taken.policies.items():
        yield PolicyChanged(object_id, item, totals.of(subject_of(object_id)))
    yield from map(AlertSeen, known.foreign.take(dependencies.clock()))
    yield from totals.sums(taken.changed)
    # Last, so that a month's breaker that waits for completeness sees all of this round; and
    # always, so that timers run in a round without records.
    yield Tick(reader.caught_up())


@dataclass(slots=True)
class _Round:
    """The records of one poll, taken apart."""

    commands: list[CommandSeen] = field(default_factory=list)
    policies: dict[str, PolicyObject | None] = field(default_factory=dict)
    changed: dict[WindowKey, None] = field(default_factory=dict)
    """The windows whose sums changed, once each, in the order of their first change."""
    has_foreign_alerts: bool = False
    """Whether another controller wrote an alert."""

    def take_all(self, records: Iterable[Record], known: _Known, meter: Meter) -> None:
        """Decode records; those that Meterline did not write are refused."""
        for record in records:
            try:
                self._take(record, known)
            except (PolicyRecordError, ThrottleError, AlertError, SnapshotError) as error:
                _refuse(record, error, meter)

    def _take(self, record: Record, known: _Known) -> None:
        """Decode one record; spend goes into the totals at once."""
        match record.topic:
            case Topic.SPEND_SNAPSHOTS:
                known.restored.add_state(record.key, record.value)
                snapshot = decode_snapshot(record.key, record.value)
                window = None if snapshot is None else known.restored.totals.apply(snapshot)
                if window is not None:
                    self.changed[window] = None
            case Topic.THROTTLE_COMMANDS if record.value:
                self.commands.append(CommandSeen(decode_command(record.value)))
            case Topic.ALERTS if record.value:
                self.has_foreign_alerts |= known.foreign.read(decode_alert(record.value))
            case Topic.POLICIES:
                self.policies[_text(record.key)] = _policy(record)
            case _:
                pass  # a tombstone of a command: Meterline writes none


def _carry_out(
    settings: AlertingSettings,
    dependencies: Dependencies,
    foreign: ForeignAlerts,
    effects: Sequence[Effect],
) -> None:
    """Make the effects durable, in the order of the module's docstring."""
    commands: list[tuple[bytes, bytes]] = []
    alerts: list[Alert] = []
    for effect in effects:
        match effect:
            case Fenced(reason, epoch):
                message = f"{reason.value}: epoch {epoch} is on {Topic.THROTTLE_COMMANDS}"
                raise _ReplacedError(message)
            case PublishThrottle(command):
                commands.append((command.scope.encode(), encode_command(command)))
            case PublishAlert(alert):
                alerts.append(alert)
    if not effects:
        return
    dependencies.failpoints.hit(AlertingFailpoint.BEFORE_COMMANDS)
    # 1. Commands: durable before alerts name them.
    if commands:
        _publish(settings, dependencies, Topic.THROTTLE_COMMANDS, commands)
    # 2. Alerts: durable before the next round, so that a restart does not publish them again.
    if alerts:
        foreign.writing(alerts)
        # Top contributors are queried after the commands are out, and for a bounded time.
        complete = explained(alerts, dependencies.store)
        records = [(alert.dedup_key.encode(), encode_alert(alert)) for alert in complete]
        _publish(settings, dependencies, Topic.ALERTS, records)
    _report(dependencies, effects)


def _publish(
    settings: AlertingSettings,
    dependencies: Dependencies,
    topic: Topic,
    records: list[tuple[bytes, bytes]],
) -> None:
    """Send and flush; the same records again if the broker was away, a bounded number of times."""
    is_commands = topic is Topic.THROTTLE_COMMANDS
    sent = AlertingFailpoint.COMMANDS_SENT if is_commands else AlertingFailpoint.ALERTS_SENT
    durable = (
        AlertingFailpoint.COMMANDS_DURABLE if is_commands else AlertingFailpoint.ALERTS_DURABLE
    )
    for attempt in range(1, PUBLISH_ATTEMPTS_MAX + 1):
        try:
            for key, value in records:
                dependencies.producer.send(topic, key, value)
            dependencies.failpoints.hit(sent)
            dependencies.producer.flush(settings.flush_timeout_seconds)
            break
        except BrokerUnavailableError as error:
            _log.warning("alerts.publish_failed", topic=topic, attempt=attempt, reason=str(error))
            if attempt == PUBLISH_ATTEMPTS_MAX:
                raise
    dependencies.failpoints.hit(durable)


def _report(dependencies: Dependencies, effects: Sequence[Effect]) -> None:
    for effect in effects:
        match effect:
            case PublishThrottle(command):
                dependencies.meter.count(Metric.COMMANDS, reason=command.state)
                _log.info(
                    "throttle.published",
                    scope=command.scope,
                    state=command.state.value,
                    version=f"{command.epoch}.{command.seq}",
                    reason=command.reason,
                )
            case PublishAlert(alert):
                dependencies.meter.count(Metric.ALERTS, reason=alert.severity)
                _log.info("alert.published", status=alert.status.value, key=alert.dedup_key)
            case Fenced():
                pass
    dependencies.meter.gauge(Metric.LAST_FLUSH_MS, dependencies.clock())


def _policy(record: Record) -> PolicyObject | None:
    item = decode_policy(record.value) if record.value else None
    if isinstance(item, RuleSet):
        RULES.published(item)  # refused here, where one record is, and not in the engine
    return item


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")


def _refuse(record: Record, error: Exception, meter: Meter) -> None:
    """A record that Meterline did not write: logged, counted, skipped."""
    meter.count(Metric.REJECTS, reason="wrong_type")
    _log.warning(
        "alerts.record_refused",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=str(error),
    )
