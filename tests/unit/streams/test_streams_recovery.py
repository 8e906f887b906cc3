"""Recovery's steps: how long they may take, and what happens when they take longer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meterline.schemas.metrics import NoMeter
from meterline.streams import recovery
from meterline.streams.agents import build_streams
from meterline.streams.recovery import BulkRecovery, RecoveryStalledError
from meterline.streams.settings import StreamsSettings
from tests.streams_model import rate

NOW = 1_793_000_000_000
FAUSTS_SECONDS = 0.01


@pytest.fixture
def bulk_recovery(tmp_path: Path) -> BulkRecovery:
    """The recovery of a worker that is not started."""
    settings = StreamsSettings(bootstrap="127.0.0.1:1", data_dir=tmp_path)
    streams = build_streams(settings, rate, lambda: NOW, NoMeter())
    manager: Any = streams.app.tables
    found = manager._recovery
    assert isinstance(found, BulkRecovery)
    return found


def test_a_large_table_may_load_for_longer_than_a_request(bulk_recovery: BulkRecovery) -> None:
    """A step that Faust would cut off, and then wait indefinitely, is waited for to its end."""
    done = []

    async def step() -> None:
        await asyncio.sleep(20 * FAUSTS_SECONDS)
        done.append(True)

    asyncio.run(bulk_recovery._wait(step(), FAUSTS_SECONDS))
    assert done


def test_a_step_without_end_ends_the_worker(
    bulk_recovery: BulkRecovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too long a step is an error, so that a successor is started, and the worker does not stall silently."""
    monkeypatch.setattr(recovery, "STEP_SECONDS_MAX", FAUSTS_SECONDS)

    async def step() -> None:
        await bulk_recovery._wait(asyncio.Event().wait(), 1.0)

    with pytest.raises(RecoveryStalledError):
        asyncio.run(step())
