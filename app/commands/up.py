"""`meterline up`: the whole pipeline on this machine until Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meterline.app.commands.options import DataDir
from meterline.app.local.stack import Stack, StackOptions
from meterline.app.settings import (
    DEFAULT_DATA_DIR,
    BrokerKind,
    Runtime,
    base_environment,
    broker_name,
)
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import stop_on_signals
from meterline.operations.policy import read_policy_file
from meterline.schemas.errors import UserError

_out = Console(highlight=False, soft_wrap=True)
KAFKA_PORT = 19_092
CLICKHOUSE_PORT = 18_123
REPLAY_GRACE_SECONDS = 20  # it drains its emitters; more means the broker is down


class KafkaChoice(StrEnum):
    """The broker that `up` starts."""

    EMBEDDED = BrokerKind.EMBEDDED.value
    APACHE = "apache"


def kafka_choice(spelling: str) -> KafkaChoice:
    """Parse the option `--kafka`; the deprecated spelling is accepted and not shown."""
    try:
        return KafkaChoice(broker_name(spelling))
    except ValueError:
        known = ", ".join(repr(each.value) for each in KafkaChoice)
        message = f"{spelling!r} is not one of {known}."
        raise typer.BadParameter(message) from None


Kafka = Annotated[
    KafkaChoice,
    typer.Option(
        parser=kafka_choice,
        metavar="[embedded|apache]",
        help="Broker; embedded: in memory, in one process; apache: Kafka 4 from jars.",
    ),
]


def up(
    data: DataDir = DEFAULT_DATA_DIR,
    policy: Annotated[
        Path | None, typer.Option(help="Policy file to publish at the start; default: a sample.")
    ] = None,
    kafka: Kafka = KafkaChoice.EMBEDDED,
    replay: Annotated[
        Path | None, typer.Option(help="Replay this trace once the pipeline is ready.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Trace seconds per second of the replay; 0: without pauses.")
    ] = 1.0,
    trace_format: Annotated[str, typer.Option("--format", help="Layout of the trace.")] = "azure",
    kafka_port: Annotated[
        int, typer.Option(help="Port of the broker; 0 picks a free one.")
    ] = KAFKA_PORT,
    clickhouse_port: Annotated[
        int, typer.Option(help="Port of ClickHouse; 0 picks a free one.")
    ] = CLICKHOUSE_PORT,
    partitions: Annotated[
        int, typer.Option(help="Number of partitions of usage.events.", min=1)
    ] = 4,
    streams_workers: Annotated[
        int, typer.Option(help="Number of streams workers.", min=1, max=16)
    ] = 1,
    log_level: Annotated[
        str, typer.Option(help="Log level: debug, info, warning or error.")
    ] = "info",
) -> None:
    """Run broker, ClickHouse and every worker on this machine; Ctrl-C drains and stops."""
    set_up_logging("up", log_level)
    is_sample = policy is None
    policy = policy or sample_policy()
    document = read_policy_file(policy)
    if replay is not None and not replay.is_file():
        message = f"no such trace: {replay}"
        raise UserError(message)
    options = StackOptions(
        data_dir=data,
        kafka=kafka.value,
        policy=policy,
        sample_policy=is_sample,
        kafka_port=kafka_port,
        clickhouse_port=clickhouse_port,
        usage_partitions=partitions,
        streams_workers=streams_workers,
        time_zone=document.time_zone,
        log_level=log_level,
    )
    stop = stop_on_signals()
    stack = Stack(options, sys.stderr, lambda line: _out.print(f"[dim]{line}[/]"))
    child: subprocess.Popen[bytes] | None = None
    try:
        runtime = stack.start()
        _out.print(ready_line(runtime, data))
        if replay is not None:
            child = _start_replay(replay, trace_format, speed, data)
        stop.wait()
        _out.print("[dim]draining and stopping[/]")
    finally:
        if child is not None:
            _end(child)
        stack.stop()
    _out.print("stopped")


def sample_policy() -> Path:
    """The policy file that ships with the package."""
    return Path(__file__).parents[1] / "local" / "demo_policy.yaml"


def ready_line(runtime: Runtime, data_dir: Path) -> str:
    """The line for the operator, and for a script that waits for "ready"."""
    return (
        f"[bold green]ready[/] kafka={runtime.bootstrap} "
        f"clickhouse=http://{runtime.clickhouse_host}:{runtime.clickhouse_port} "
        f"data={data_dir} (Ctrl-C stops)"
    )


def _start_replay(
    trace: Path, trace_format: str, speed: float, data: Path
) -> subprocess.Popen[bytes]:
    """A process of its own, as a fleet of relays would be."""
    arguments = ["--format", trace_format, "--speed", str(speed), "--data", str(data)]
    return subprocess.Popen(  # noqa: S603 - a command of this package
        [sys.executable, "-m", "meterline.app.cli", "replay", str(trace), *arguments],
        env=base_environment(),
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(REPLAY_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
