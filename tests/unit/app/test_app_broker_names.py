"""The embedded broker is called `embedded`; its vendor's name stays accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks.chaos_suite.schedule import make_schedule, read_schedule, schedule_text
from meterline.app.commands.up import KafkaChoice, kafka_choice
from meterline.app.settings import (
    RUNTIME_FILE,
    BrokerKind,
    Runtime,
    SettingsError,
    broker_name,
    load_settings,
)

RUNTIME = Runtime(
    pid=1,
    bootstrap="127.0.0.1:19092",
    kind=BrokerKind.EMBEDDED,
    usage_partitions=4,
    clickhouse_host="127.0.0.1",
    clickhouse_port=18_123,
    time_zone="UTC",
    log_epoch=3,
)


@pytest.mark.parametrize("spelling", ["embedded", "tansu"])
def test_the_setting_takes_both_spellings(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """METERLINE_KAFKA__KIND of an older deployment means the same broker."""
    monkeypatch.setenv("METERLINE_KAFKA__KIND", spelling)
    assert load_settings(tmp_path).kafka.kind is BrokerKind.EMBEDDED


def test_an_unknown_kind_names_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt kind is a fault that lists what is accepted, without the deprecated spelling."""
    monkeypatch.setenv("METERLINE_KAFKA__KIND", "redpanda")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert str(caught.value) == "METERLINE_KAFKA__KIND: Input should be 'kafka' or 'embedded'"


def test_a_runtime_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Commands find a pipeline whose `up` still wrote the vendor's name."""
    older = RUNTIME.model_dump_json().replace('"embedded"', '"tansu"')
    (tmp_path / RUNTIME_FILE).write_text(older, encoding="utf-8")
    assert "tansu" in older
    assert Runtime.read(tmp_path) == RUNTIME


def test_a_runtime_file_has_the_name(tmp_path: Path) -> None:
    """What `up` writes has the new spelling alone."""
    RUNTIME.write(tmp_path)
    text = (tmp_path / RUNTIME_FILE).read_text(encoding="utf-8")
    assert '"kind": "embedded"' in text
    assert Runtime.read(tmp_path) == RUNTIME


def test_the_option_takes_both_spellings() -> None:
    """`--kafka tansu` in a script still starts the embedded broker; a misspelling is refused."""
    assert kafka_choice("embedded") is kafka_choice("tansu") is KafkaChoice.EMBEDDED
    assert kafka_choice("apache") is KafkaChoice.APACHE
    with pytest.raises(typer.BadParameter, match="is not one of 'embedded', 'apache'"):
        kafka_choice("redpanda")


def test_other_names_pass_unchanged() -> None:
    """Only the deprecated spelling is translated; the parser refuses what it does not know."""
    assert [broker_name(each) for each in ("tansu", "embedded", "apache", "x")] == [
        "embedded",
        "embedded",
        "apache",
        "x",
    ]


def test_an_older_chaos_schedule_is_repeated(tmp_path: Path) -> None:
    """A schedule printed with the vendor's name is the same schedule, and so is its seed's."""
    schedule = make_schedule(cycles=3, seed=1, kafka="embedded")
    path = tmp_path / "schedule.json"
    path.write_text(schedule_text(schedule).replace('"embedded"', '"tansu"'), encoding="utf-8")
    assert read_schedule(path) == schedule
