"""What a close works with: the store, the published policy, the workers' lag, the audit log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.config import KafkaConfig
from meterline.control.audit_log import write_audit
from meterline.control.store import read_policies
from meterline.operations.lag import read_lag
from meterline.operations.pipeline import Pipeline
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.reports.close.close import CloseDependencies
from meterline.schemas.topics import Topic

# A month of 30 million events is added up in less than two minutes.
STATEMENT_SECONDS_MAX = 1_800


@contextmanager
def close_dependencies(
    pipeline: Pipeline, on_step: Callable[[str], None]
) -> Iterator[CloseDependencies]:
    """What one close works with; its client is closed afterwards.

    Args:
        pipeline: whose months are closed.
        on_step: called before each step, with its name.
    """
    config = dataclasses.replace(pipeline.clickhouse, statement_seconds_max=STATEMENT_SECONDS_MAX)
    kafka = pipeline.kafka("close")
    with closing(Client(config)) as client:
        yield CloseDependencies(
            client=client,
            root=pipeline.closes,
            time_zone=pipeline.time_zone,
            policies=lambda: read_policies(kafka),
            lag=lambda: lag_in_words(kafka),
            audit=lambda entry: write_audit(kafka, entry),
            contracted=load_catalogue(pipeline.catalogues),
            listed=load_catalogue(()),
            on_step=on_step,
        )


def lag_in_words(config: KafkaConfig) -> Sequence[str]:
    """Workers that have not consumed everything that is in usage.events now, in words.

    Raises:
        KafkaClientError: the brokers do not answer, or refuse.
    """
    found: list[str] = []
    for each in read_lag(config):
        waiting = {number: count for number, count in each.behind.items() if count}
        if waiting:
            parts = ", ".join(f"partition {number}: {n:,}" for number, n in waiting.items())
            found.append(f"{each.worker} is behind in {Topic.USAGE_EVENTS} ({parts} messages)")
    return found
