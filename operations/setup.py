"""What must exist before a worker starts: topics and tables."""

from __future__ import annotations

from contextlib import closing

from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.admin import Admin
from meterline.operations.pipeline import Pipeline
from meterline.schemas.topics import TOPICS
from meterline.sinks.migrate import ClusterOptions, migrate


def apply_topics(pipeline: Pipeline) -> list[str]:
    """Create or adjust every topic; one line per change.

    Raises:
        KafkaClientError: the brokers do not answer, or refuse a change.
    """
    with closing(Admin(pipeline.kafka("topics"))) as admin:
        changes = admin.apply(
            TOPICS,
            usage_partitions=pipeline.partitions,
            replication_factor=pipeline.replication_factor,
        )
    return [str(change) for change in changes]


def apply_migrations(pipeline: Pipeline) -> list[str]:
    """Bring the tables up to date; names of the migrations applied.

    Raises:
        MigrationError: the tables are of another version or cluster.
        ClickHouseError: the server does not answer, or refuses a statement.
    """
    cluster = ClusterOptions(pipeline.cluster) if pipeline.cluster else None
    with closing(Client(pipeline.clickhouse)) as client:
        return migrate(client, cluster=cluster)
