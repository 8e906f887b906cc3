"""The table of workers: what is made from it, and that a new worker is one line of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from meterline.app.cli import COMMANDS, commands, make_cli
from meterline.app.local.worker_specs import worker_processes, worker_specs
from meterline.app.settings import KafkaSection, Settings
from meterline.app.workers.table import WORKERS, Worker, groups_of
from meterline.schemas.groups import GROUPS

ECHO = Worker("echo", "tests.unit.app.echo_worker:start", "Say what it was given.")
MORE = (*WORKERS, ECHO)
ROOT = Path(__file__).parents[3]


def test_a_new_worker_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line makes a verb that runs the worker with settings and metrics, and ends with its code."""
    monkeypatch.setenv("METERLINE_KAFKA__BOOTSTRAP", "broker:9092")
    cli = make_cli(commands(MORE))
    done = CliRunner().invoke(cli, ["echo"])
    assert (done.stdout, done.exit_code) == ("echo of broker:9092 ready=True\n", 7)
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert re.search(r"│ echo +Say what it was given\. +│", shown)


def test_a_new_worker_is_a_process_of_up(tmp_path: Path) -> None:
    """One line makes a supervised process with its own directory, port and readiness check."""
    settings = Settings(data_dir=tmp_path, kafka=KafkaSection(bootstrap="127.0.0.1:19092"))
    processes = worker_processes(1, MORE)
    ports = {name: 9_100 + number for number, name in enumerate(processes)}
    specs = {each.name: each for each in worker_specs(settings, ports, processes, {}, 1)}
    assert list(specs) == [*(worker.name for worker in WORKERS), "echo"]
    echo = specs["echo"]
    assert echo.argv == (sys.executable, "-m", "meterline.app.cli", "echo")
    assert echo.env["METERLINE_METRICS_PORT"] == str(ports["echo"])
    assert echo.env["METERLINE_DATA_DIR"] == str(tmp_path / "run" / "echo")
    assert echo.env["METERLINE_KAFKA__BOOTSTRAP"] == "127.0.0.1:19092"
    assert (echo.order, specs["sink"].order) == (1, 1)
    assert echo.ready is not None
    assert not echo.ready(), "nothing listens on its port yet"


def test_further_variables_of_one_process_win() -> None:
    """What a chaos run sets for one worker replaces the pipeline's setting there and only there."""
    more = {"sink": {"METERLINE_CRASH_AT": "after_insert"}}
    processes = worker_processes(1)
    specs = worker_specs(Settings(), dict.fromkeys(processes, 9_100), processes, more, 1)
    points = {each.name: each.env["METERLINE_CRASH_AT"] for each in specs}
    assert {name for name, point in points.items() if point} == {"sink"}
    assert points["sink"] == "after_insert"


def test_several_streams_workers_are_numbered() -> None:
    """Two streams workers are two processes of the same command."""
    processes = worker_processes(2)
    assert list(processes)[:3] == ["streams-1", "streams-2", "sink"]
    assert processes["streams-1"] is processes["streams-2"] is WORKERS[0]


@pytest.mark.parametrize("worker", WORKERS, ids=lambda each: each.name)
def test_every_worker_can_be_loaded(worker: Worker) -> None:
    """The name in the table is a function; a misspelling would only show in production."""
    assert callable(worker.load())


def test_every_worker_has_its_command() -> None:
    """The command line of the product has the table's verbs under the table's headings."""
    assert {each.name: each.panel for each in WORKERS} == {
        each.name: COMMANDS[each.name].panel for each in WORKERS
    }


def test_groups_and_workers_name_each_other() -> None:
    """The registry of consumer groups and the table of workers agree on whose group is whose."""
    assert groups_of(WORKERS) == GROUPS


def test_compose_runs_every_worker() -> None:
    """The production-like stack has one service for each worker of the table."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    commands = {name: service.get("command") for name, service in services.items()}
    for worker in WORKERS:
        assert commands.get(worker.name) == [worker.name], "a service in docker-compose.yml"
