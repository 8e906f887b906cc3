"""The whole pipeline as `meterline up` runs it, for integration tests."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from meterline.app.clock import now_ms
from meterline.app.settings import Runtime, load_settings
from meterline.app.wiring import kafka_config
from meterline.relay.client import RelayClient
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter

Answer = TypeVar("Answer")
READY = re.compile(r"^ready kafka=")
# The first run on Apache Kafka resolves its jars; after that it is ready in about 20 s.
START_TIMEOUT_SECONDS = 240
STOP_TIMEOUT_SECONDS = 60
COMMAND_TIMEOUT_SECONDS = 240
# What other processes bring about within a second, on a machine that is busy with other tests.
SOON_SECONDS = 60.0


class Pipeline:
    """One running pipeline; `cli` runs a command against it."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[str], log: Path) -> None:
        self.data_dir = data_dir
        self.process = process
        self.log = log

    @property
    def runtime(self) -> Runtime:
        """Ports and kinds, as `up` wrote them down."""
        runtime = Runtime.read(self.data_dir)
        assert runtime is not None
        return runtime

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `meterline ARGUMENTS` as an operator would."""
        done = run_cli(*arguments, data_dir=self.data_dir)
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with --json and read its answer."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def worker_pid(self, name: str) -> int:
        """The process id of one worker, from the supervisor's state file."""
        report = json.loads((self.data_dir / "workers.json").read_text(encoding="utf-8"))
        (worker,) = [one for one in report["workers"] if one["name"] == name]
        return int(worker["pid"])

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_SECONDS)


def eventually(question: Callable[[], Answer | None], what: str) -> Answer:
    """The first answer that is true or not empty, of a question that other processes decide."""
    deadline = time.monotonic() + SOON_SECONDS
    while not (answer := question()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)
    return answer


@contextmanager
def running_relay(pipeline: Pipeline, name: str, spool: Path) -> Iterator[RelayClient]:
    """A relay in this process, which is another one than the pipeline's."""
    config = kafka_config(load_settings(pipeline.data_dir), name)
    client = RelayClient(RelaySettings(name, config, SpoolSettings(spool)), now_ms, NoMeter())
    try:
        assert client.start(SOON_SECONDS), "the gate must have read its topics"
        yield client
    finally:
        client.close(10)


def run_cli(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "meterline.app.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        env=clean_environment({"METERLINE_DATA_DIR": str(data_dir)}),
    )


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without METERLINE_ settings, wide enough not to wrap lines."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("METERLINE_")}
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **(more or {})}


@contextmanager
def running_pipeline(
    data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Pipeline]:
    """`meterline up` on free ports, ready; stopped (and killed if it must be) at the end."""
    log = data_dir.with_name(data_dir.name + ".log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "meterline.app.cli", "up", "--data", str(data_dir)),
                *("--kafka-port", "0", "--clickhouse-port", "0", *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=clean_environment(environment),
        )
        pipeline = Pipeline(data_dir, process, log)
        try:
            _wait_ready(process, log)
            yield pipeline
        finally:
            try:
                pipeline.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _wait_ready(process: subprocess.Popen[str], log: Path) -> None:
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    said: list[str] = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if not selector.select(1.0):
                continue
            line = process.stdout.readline()
            if not line:
                break
            said.append(line)
            if READY.match(line):
                return
    tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    message = f"the pipeline did not become ready: {''.join(said)}\n{tail}"
    raise AssertionError(message)
