"""One pipeline for the module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline import Pipeline, running_pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, kafka_kind: str) -> Iterator[Pipeline]:
    """`meterline up` on the broker that --kafka names, with the sample policy."""
    folder = tmp_path_factory.mktemp("pipeline") / "data"
    with running_pipeline(folder, "--kafka", kafka_kind) as running:
        yield running
