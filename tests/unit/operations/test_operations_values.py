"""Use cases and the control plane are handed values: settings stop in `app`."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import meterline.control
import meterline.operations
from meterline.app import settings as app_settings
from meterline.app.settings import Settings
from meterline.app.wiring import pipeline
from meterline.operations.pipeline import Pipeline
from meterline.schemas.periods import WindowKind

# Found by name: annotations are text (`from __future__ import annotations`).
SECTIONS = {
    name
    for name, item in vars(app_settings).items()
    if inspect.isclass(item) and item.__module__ == app_settings.__name__
}


def modules() -> list[str]:
    rooms = (meterline.operations, meterline.control)
    return [
        name for room in rooms for name in sorted(names_in(room)) if not name.endswith("__main__")
    ]


def names_in(room: ModuleType) -> Iterator[str]:
    yield room.__name__
    for each in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        yield each.name


def functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function and method that the module defines."""
    for name, item in vars(module).items():
        if getattr(item, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(item):
            yield name, item
        elif inspect.isclass(item):
            for method, function in vars(item).items():
                if inspect.isfunction(function):
                    yield f"{name}.{method}", function


def test_the_walk_sees_the_use_cases() -> None:
    """An empty walk would pass the others without a look."""
    names = modules()
    assert {"meterline.operations.rebuild", "meterline.control.policy.plan"} <= set(names)
    assert "Settings" in SECTIONS
    found = dict(functions(import_module("meterline.operations.rebuild")))
    assert found["rebuild"].__annotations__["pipeline"] == "Pipeline"


@pytest.mark.parametrize("name", modules())
def test_no_function_takes_settings(name: str) -> None:
    """What a use case needs is a Pipeline or narrower values, never the settings' model."""
    for function, code in functions(import_module(name)):
        for parameter, annotation in code.__annotations__.items():
            words = set(str(annotation).replace("|", " ").replace("[", " ").split())
            assert not words & SECTIONS, f"{name}.{function}: {parameter}: {annotation}"


@pytest.mark.parametrize("name", modules())
def test_no_module_imports_the_composition_root(name: str) -> None:
    """Neither app nor the embedded servers, at the head or within a function."""
    source = Path(str(import_module(name).__file__)).read_text(encoding="utf-8")
    assert "meterline.app" not in source
    assert "meterline.embedded" not in source


def test_the_pipeline_says_what_the_settings_say(tmp_path: Path) -> None:
    """One epoch, one retention, one time zone: use cases count as the workers do."""
    made: Pipeline = pipeline(Settings(data_dir=tmp_path, log_epoch=3, time_zone="Asia/Shanghai"))
    assert made.log_epoch == made.ledger.epoch == 3
    assert made.calendar.time_zone == "Asia/Shanghai"
    assert made.ledger.retention.of(WindowKind.MINUTE) > 0
    assert made.closes == tmp_path / "closes"
    assert made.kafka("close").client_id.startswith("meterline-close-")
