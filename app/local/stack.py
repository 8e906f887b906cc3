"""The whole pipeline on one machine: servers, set-up, workers, in this order; what `up` runs.

    order 0   broker, ClickHouse
    then      topics, tables, policy        (this process, before order 1)
    order 1   streams, sink, alerts, notify, reports

Stopping is in the reverse order, so that workers drain into servers that still answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from meterline.app.clock import now_ms
from meterline.app.local.worker_specs import READY_TIMEOUT_SECONDS, worker_processes, worker_specs
from meterline.app.settings import (
    RUNTIME_FILE,
    STATE_FILE,
    BrokerKind,
    ClickHouseSection,
    KafkaSection,
    Runtime,
    Settings,
    base_environment,
)
from meterline.app.wiring import kafka_config, pipeline
from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.errors import KafkaClientError
from meterline.control.store import publish, read_policies
from meterline.embedded.broker import broker_argv
from meterline.embedded.clickhouse import answers_ping
from meterline.embedded.core.supervision import ProcessSpec, ProcessState, RestartPolicy
from meterline.embedded.kafka import prepare
from meterline.embedded.processes import free_port, require_free_port
from meterline.embedded.protocol import answers_kafka
from meterline.embedded.supervisor import Supervisor
from meterline.operations.policy import planned_by_file
from meterline.operations.rebuild import is_needed, rebuild
from meterline.operations.setup import apply_migrations, apply_topics
from meterline.schemas.errors import UserError
from meterline.schemas.groups import Group
from meterline.schemas.policy import RULES_ID, PolicyObject, RuleSet
from meterline.schemas.topics import KEPT_TOPICS, Topic

LOG_FILE = "pipeline.log"
SERVERS, WORKERS = 0, 1
# At a stop the sink has this long to store what the embedded broker holds: it is at most a second
# behind as a rule, and relays that go on sending must not keep the pipeline from ending.
SINK_SECONDS_MAX = 10.0
SINK_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The options of `up`; port 0 picks a free one."""

    data_dir: Path
    kafka: str = BrokerKind.EMBEDDED.value
    """`embedded` or `apache`."""
    policy: Path | None = None
    sample_policy: bool = False
    """`policy` is the shipped sample: it yields to a policy that was published before."""
    kafka_port: int = 0
    clickhouse_port: int = 0
    usage_partitions: int = 4
    streams_workers: int = 1
    time_zone: str = "UTC"
    log_level: str = "info"
    environment: Mapping[str, MutableMapping[str, str]] = field(default_factory=dict)
    """Further environment variables of a worker process, by its name; read at each of its starts."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)


class Stack:
    """Servers and workers of one data directory."""

    def __init__(self, options: StackOptions, log: TextIO, progress: Callable[[str], None]) -> None:
        """Create a stopped stack.

        Args:
            options: what to run.
            log: receives the output of every process, line by line.
            progress: receives one line of progress for the operator.
        """
        self.options = options
        self._progress = progress
        self._log = log
        self._lock: TextIO | None = None
        self._ports: dict[str, int] = {}
        self._supervisor: Supervisor | None = None
        self._started = False
        self.settings = Settings(data_dir=options.data_dir)

    def start(self) -> Runtime:
        """Start everything; returns when every worker has caught up.

        Raises:
            UserError: another pipeline runs in this directory.
            EmbeddedError: a server or worker did not start; all are stopped again.
        """
        data_dir = self.options.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(data_dir)
        kafka_port = self.options.kafka_port or free_port()
        clickhouse_port = self.options.clickhouse_port or free_port()
        for port in (kafka_port, clickhouse_port):
            require_free_port(port)
        self.settings = self._make_settings(kafka_port, clickhouse_port)
        workers = worker_processes(self.options.streams_workers)
        self._ports = {name: free_port() for name in workers}
        specs = [
            *self._servers(kafka_port, clickhouse_port),
            *worker_specs(self.settings, self._ports, workers, self.options.environment, WORKERS),
        ]
        self._supervisor = Supervisor(
            specs,
            self._log,
            clock=now_ms,
            environment=base_environment(),
            state_file=data_dir / STATE_FILE,
            log_file=data_dir / LOG_FILE,
            policy=self.options.restart,
        )
        self._supervisor.start(before=self._set_up)
        runtime = self._runtime(kafka_port, clickhouse_port)
        runtime.write(data_dir)
        self._started = True
        return runtime

    def _await_sink(self) -> None:
        """What the embedded broker holds and ClickHouse does not would be lost with the broker."""
        if self.options.kafka != BrokerKind.EMBEDDED.value:
            return
        deadline = time.monotonic() + SINK_SECONDS_MAX
        with contextlib.suppress(KafkaClientError):
            admin = Admin(
                kafka_config(self.settings, "stop"), bootstrap_seconds=READY_TIMEOUT_SECONDS
            )
            try:
                for topic in (Topic.USAGE_EVENTS, *KEPT_TOPICS):
                    while sum((admin.group_lag(Group.SINK, topic) or {}).values()):
                        if time.monotonic() > deadline:
                            self._progress(
                                "the sink is behind: some events are lost with the broker"
                            )
                            return
                        time.sleep(SINK_POLL_SECONDS)
            finally:
                admin.close()

    def stop(self) -> None:
        """Drain the workers, then stop the servers; may be called twice."""
        if self._supervisor is not None:
            if self._started:
                self._started = False
                self._await_sink()
            self._supervisor.stop()
        if self._lock is not None:
            # Without the lock the file is another pipeline's.
            with contextlib.suppress(FileNotFoundError):
                (self.options.data_dir / RUNTIME_FILE).unlink()
            self._lock.close()
            self._lock = None

    def states(self) -> list[ProcessState]:
        """Every process as it is now."""
        return self._supervisor.states() if self._supervisor else []

    def restart(self, name: str) -> None:
        """Stop one process and start it again."""
        if self._supervisor is not None:
            self._supervisor.restart(name)

    def _make_settings(self, kafka_port: int, clickhouse_port: int) -> Settings:
        embedded = self.options.kafka == BrokerKind.EMBEDDED.value
        return Settings(
            data_dir=self.options.data_dir,
            time_zone=self.options.time_zone,
            log_epoch=_next_epoch(self.options.data_dir, memory_only=embedded),
            log_level=self.options.log_level,
            kafka=KafkaSection(
                bootstrap=f"127.0.0.1:{kafka_port}",
                kind=BrokerKind.EMBEDDED if embedded else BrokerKind.KAFKA,
                usage_partitions=self.options.usage_partitions,
            ),
            clickhouse=ClickHouseSection(port=clickhouse_port),
        )

    def _set_up(self, order: int) -> None:
        """Create what every worker needs, once the servers run and before the workers start."""
        if order != WORKERS:
            return
        self._progress("servers answer; creating topics and tables")
        apply_topics(pipeline(self.settings))
        apply_migrations(pipeline(self.settings))
        self._rebuild()
        self._publish_policy()
        self._progress("starting the workers")

    def _rebuild(self) -> None:
        """Restore the state of a broker that lost its log, from ClickHouse."""
        if not is_needed(pipeline(self.settings)):
            return
        self._progress("the log is new: restoring its state from ClickHouse")
        report = rebuild(pipeline(self.settings), now_ms(), self._progress)
        self._progress(
            f"restored {report.totals:,} totals of {report.events:,} events in "
            f"{report.seconds:.1f} s"
        )

    def _publish_policy(self) -> None:
        """The policy file, if one is given; a sample does not replace what was published."""
        path = self.options.policy
        if path is None:
            return
        kafka = kafka_config(self.settings, "policy")
        if self.options.sample_policy:
            published = read_policies(kafka)
            if published:
                _check_time_zone(published, self.settings.time_zone)
                return
        changes = planned_by_file(pipeline(self.settings), path)
        reason = f"start with {path.name}"
        publish(kafka, changes, actor="up", reason=reason, at_ms=now_ms())
        self._progress(f"policy: {len(changes)} objects published")

    def _servers(self, kafka_port: int, clickhouse_port: int) -> Iterator[ProcessSpec]:
        data_dir = self.options.data_dir
        if self.options.kafka == BrokerKind.EMBEDDED.value:
            argv = broker_argv(kafka_port)
        else:
            self._progress("Apache Kafka: resolving its jars (once)")
            (data_dir / "kafka").mkdir(exist_ok=True)
            argv = prepare(data_dir / "kafka", kafka_port)
        yield ProcessSpec(
            name="broker",
            argv=argv,
            env={},
            order=SERVERS,
            ready=lambda: answers_kafka(kafka_port),
            ready_timeout_seconds=60,
        )
        yield ProcessSpec(
            name="clickhouse",
            argv=(
                sys.executable,
                "-m",
                "meterline.embedded.clickhouse",
                "--data",
                str(data_dir / "clickhouse"),
                "--port",
                str(clickhouse_port),
            ),
            env={},
            order=SERVERS,
            ready=lambda: answers_ping(clickhouse_port),
            ready_timeout_seconds=60,
        )

    def _runtime(self, kafka_port: int, clickhouse_port: int) -> Runtime:
        return Runtime(
            pid=os.getpid(),
            bootstrap=f"127.0.0.1:{kafka_port}",
            kind=self.settings.kafka.kind,
            usage_partitions=self.options.usage_partitions,
            clickhouse_host="127.0.0.1",
            clickhouse_port=clickhouse_port,
            time_zone=self.options.time_zone,
            log_epoch=self.settings.log_epoch,
            metrics_ports=dict(self._ports),
        )


def _check_time_zone(published: Mapping[str, PolicyObject], time_zone: str) -> None:
    rules = published.get(RULES_ID)
    if isinstance(rules, RuleSet) and rules.time_zone != time_zone:
        message = (
            f"the policy of this data directory counts in {rules.time_zone}, the sample in "
            f"{time_zone}: name the policy file with --policy"
        )
        raise UserError(message)


def _lock(data_dir: Path) -> TextIO:
    """One pipeline per directory; the kernel frees the lock when we die."""
    handle = (data_dir / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        message = f"a pipeline already runs in {data_dir}: stop it first, or choose another --data"
        raise UserError(message) from None
    return handle


def _next_epoch(data_dir: Path, *, memory_only: bool) -> int:
    """The generation of the log: a broker that forgot everything begins a new one."""
    path = data_dir / "log-epoch"
    try:
        last = int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        last = -1
    keeps = not memory_only and (data_dir / "kafka").is_dir() and last >= 0
    epoch = last if keeps else last + 1
    path.write_text(str(epoch), encoding="ascii")
    return epoch
