"""What the workers of `meterline up` get of the settings that `up` was given."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from meterline.app.local.worker_specs import worker_environment
from meterline.app.settings import (
    CLOSES_DIRECTORY,
    KafkaSection,
    ReportsSection,
    Settings,
    environment_of,
    load_settings,
)
from meterline.embedded.core.supervision import ProcessSpec

# The first of these that a field accepts and that is not its default is the value under test.
TEXTS = (
    'a "b" {c}',
    "broker-1:9092,broker-2:9092",
    "json",
    "warning",
    "Europe/Berlin",
    "other",
    "METERLINE_SECRET_OTHER",
)
PER_WORKER = {("data_dir",), ("metrics_port",), ("crash_at",)}
Where = tuple[str, ...]


def leaves(model: type[BaseModel], inside: Where = ()) -> Iterator[Where]:
    """The path of every setting that is no section."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*inside, name))
        else:
            yield (*inside, name)


LEAVES = tuple(leaves(Settings))


def read(settings: BaseModel, where: Where) -> Any:
    """The value of one setting."""
    value: Any = settings
    for name in where:
        value = getattr(value, name)
    return value


def candidates(kind: Any, default: Any, file: Path) -> Iterator[Any]:
    """Values of a type that are likely to be valid."""
    if get_origin(kind) is types.UnionType:
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        yield tuple(next(candidates(get_args(kind)[0], None, file)) for _ in range(2))
    elif kind is bool:
        yield not default
    elif kind is int:
        yield from (default + 1, default - 1)
    elif kind is Path:
        yield file
    elif kind is SecretStr:
        yield SecretStr("s3cret {not json")
    elif issubclass(kind, StrEnum):
        yield from kind
    elif kind is str:
        yield from TEXTS


def changed(where: Where, file: Path) -> Settings:
    """Settings of which one differs from its default; fails for a type that is new here."""
    *sections, name = where
    model: type[BaseModel] = Settings
    for section in sections:
        model = type(read(Settings(), (section,)))
    field = model.model_fields[name]
    default = field.get_default()
    for value in candidates(field.annotation, default, file):
        values: dict[str, Any] = {name: value}
        for section in reversed(sections):
            values = {section: values}
        try:
            settings = Settings(**values)
        except ValidationError:
            continue
        if read(settings, where) != default:
            return settings
    message = f"teach this test a value for {'.'.join(where)}"
    raise AssertionError(message)


def child_of(variables: Mapping[str, str], directory: Path) -> Settings:
    """The settings of a process with these variables in another directory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("METERLINE_")]:
            patch.delenv(name)
        for name, text in variables.items():
            patch.setenv(name, text)
        patch.chdir("/")
        return load_settings(directory)


@pytest.mark.parametrize("where", LEAVES, ids=".".join)
def test_every_setting_reaches_the_workers(
    where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's settings equal those of `up` in every field, one added tomorrow included."""
    monkeypatch.chdir(tmp_path)
    Path("relative.json").write_text("{}", encoding="utf-8")
    parent = changed(where, Path("relative.json"))
    child = child_of(worker_environment(parent, "sink", 9_100), parent.data_dir.absolute())
    for each in LEAVES:
        if each in PER_WORKER or each == ("reports", "directory"):
            continue
        expected = read(parent, each)
        if each == ("catalogues",):
            expected = tuple(path.absolute() for path in expected)
        assert read(child, each) == expected, each
    closes = parent.reports.directory or parent.data_dir / CLOSES_DIRECTORY
    assert child.reports.directory == closes.absolute()
    assert (child.metrics_port, child.crash_at) == (9_100, "")


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    """Quotes, braces, JSON and spaces in a name or a password arrive as they were."""
    parent = Settings(
        kafka=KafkaSection(sasl_username=text, sasl_password=SecretStr(text)), notify_ca_file=text
    )
    child = child_of(environment_of(parent), Path("/nonexistent"))
    assert child.kafka == parent.kafka
    assert child.notify_ca_file == text


def test_a_worker_has_its_own_directory_and_port(tmp_path: Path) -> None:
    """What two workers must not share is named for the worker."""
    variables = worker_environment(Settings(data_dir=tmp_path), "sink", 9_100)
    assert variables["METERLINE_DATA_DIR"] == str(tmp_path / "run" / "sink")
    assert variables["METERLINE_METRICS_PORT"] == "9100"


def test_secrets_reach_the_process_and_no_repr() -> None:
    """The child can authenticate; neither the settings nor the process spec shows how."""
    parent = Settings(kafka=KafkaSection(sasl_password=SecretStr("hunter2")))
    variables = environment_of(parent)
    assert variables["METERLINE_KAFKA__SASL_PASSWORD"] == "hunter2"
    assert "hunter2" not in repr(ProcessSpec("sink", ("true",), env=variables))
    assert "hunter2" not in repr(parent)


def test_workers_get_catalogues_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rate cards and the pull endpoint of `up` are those of its workers, wherever these run."""
    monkeypatch.chdir(tmp_path)
    Path("contract.json").write_text("{}", encoding="utf-8")
    parent = Settings(
        data_dir=tmp_path,
        catalogues=(Path("contract.json"),),
        reports=ReportsSection(exports_port=8_099, exports_token_env="METERLINE_SECRET_ERP"),
    )
    for name, text in worker_environment(parent, "reports", 9_100).items():
        monkeypatch.setenv(name, text)
    monkeypatch.chdir("/")
    child = Settings()
    assert child.catalogues == (tmp_path / "contract.json",)
    assert child.reports.directory == tmp_path / CLOSES_DIRECTORY
    assert (child.reports.exports_port, child.reports.exports_token_env) == (
        8_099,
        "METERLINE_SECRET_ERP",
    )
