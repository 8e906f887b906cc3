"""Policy as kept in Kafka: published, read back, deleted, repaired, and recorded in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meterline.backends.kafka.admin import Admin
from meterline.backends.kafka.config import KafkaConfig, embedded_kafka
from meterline.backends.kafka.errors import KafkaFatalError
from meterline.backends.kafka.producer import Producer
from meterline.backends.kafka.reader import TopicReader
from meterline.control.policy.file import plan
from meterline.control.store import publish, read_policies
from meterline.operations.policy import compile_policy, parse_policy
from meterline.schemas.audit import AuditEntry, decode_audit
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.topics import Topic, topic_spec
from tests.servers import running_broker

pytestmark = pytest.mark.functional

PATIENCE_SECONDS = 30.0
NOW_MS = 1_700_000_000_000
DEMO = Path(__file__).parents[2] / "app" / "local" / "demo_policy.yaml"
SMALL = """\
version: 1
organisations:
  - id: acme
    departments:
      - {id: research, budget: {month_usd: 50}}
      - {id: legal, budget: {month_usd: 0.000000001}}
"""


@pytest.fixture
def config() -> Iterator[KafkaConfig]:
    """A fresh broker with the two topics that policy lives in."""
    with running_broker() as bootstrap:
        config = embedded_kafka(bootstrap)
        admin = Admin(config)
        admin.apply(
            [topic_spec(Topic.POLICIES), topic_spec(Topic.AUDIT_LOG)],
            usage_partitions=1,
            replication_factor=1,
        )
        admin.close()
        yield config


def apply(config: KafkaConfig, text: str, at_ms: int = NOW_MS) -> int:
    """What `meterline policy apply` does; the number of changes."""
    desired = compile_policy(parse_policy(text, "policy.yaml"))
    changes = plan(read_policies(config, PATIENCE_SECONDS), desired)
    publish(config, changes, actor="ana", reason="because", at_ms=at_ms)
    return len(changes)


def audit_log(config: KafkaConfig) -> list[AuditEntry]:
    reader = TopicReader(config, [Topic.AUDIT_LOG])
    try:
        records = list(reader.read_to_end(PATIENCE_SECONDS))
    finally:
        reader.close()
    entries = [decode_audit(record.value or b"") for record in records]
    assert [record.key for record in records] == [entry.object_id.encode() for entry in entries]
    return entries


def test_what_was_published_is_read_back_and_leaves_nothing_to_do(config: KafkaConfig) -> None:
    """The sample policy comes back object by object, and a second apply changes nothing."""
    text = DEMO.read_text(encoding="utf-8")
    assert read_policies(config, PATIENCE_SECONDS) == {}
    assert apply(config, text) > 10
    assert read_policies(config, PATIENCE_SECONDS) == compile_policy(parse_policy(text, "p"))
    assert apply(config, text) == 0


def test_a_change_and_a_deletion_reach_the_readers(config: KafkaConfig) -> None:
    """A raised budget comes with higher versions; a department that is gone is gone."""
    apply(config, SMALL)
    smaller = SMALL.replace("month_usd: 50", "month_usd: 60").splitlines()[:-1]
    assert apply(config, "\n".join(smaller)) == 2
    policies = read_policies(config, PATIENCE_SECONDS)
    assert "department:acme/legal" not in policies
    research = policies["department:acme/research"]
    assert isinstance(research, ScopePolicy)
    assert (research.version, research.budget_version) == (2, 2)
    assert research.budget.month_nano_usd == 60 * 10**9


def test_every_change_is_in_the_audit_log_with_its_author(config: KafkaConfig) -> None:
    """The audit log says who, why, when, and what it was before and after."""
    apply(config, SMALL, at_ms=NOW_MS)
    apply(config, SMALL.replace("month_usd: 50", "month_usd: 60"), at_ms=NOW_MS + 1)
    *created, changed = audit_log(config)
    assert {entry.action for entry in created} == {"policy.created"}
    assert len(created) == 5
    assert (changed.action, changed.object_id) == ("policy.changed", "department:acme/research")
    assert (changed.actor, changed.reason, changed.at_ms) == ("ana", "because", NOW_MS + 1)
    assert '"month_nano_usd":50000000000' in changed.before
    assert '"month_nano_usd":60000000000' in changed.after


def test_a_retry_publishes_the_same(config: KafkaConfig) -> None:
    """Publishing the same changes twice leaves the same policy and no new audit id."""
    changes = plan({}, compile_policy(parse_policy(SMALL, "p")))
    for _ in range(2):
        publish(config, changes, actor="ana", reason="r", at_ms=NOW_MS)
    entries = audit_log(config)
    assert len(entries) == 2 * len(changes)
    assert len({entry.id for entry in entries}) == len(changes)
    assert read_policies(config, PATIENCE_SECONDS) == {
        change.object_id: change.after for change in changes
    }


@pytest.mark.parametrize(
    "value",
    [b"{", b'{"kind":"scope","scope":"department:acme/legal"}', b"\xff"],
    ids=["no-json", "another-object", "no-text"],
)
def test_a_record_that_is_no_policy_is_repaired_by_the_next_apply(
    config: KafkaConfig, value: bytes
) -> None:
    """An unreadable record counts as absent, so that the next plan writes over it."""
    apply(config, SMALL)
    producer = Producer(config)
    producer.send(Topic.POLICIES, b"department:acme/research", value)
    producer.flush(PATIENCE_SECONDS)
    producer.close()
    policies = read_policies(config, PATIENCE_SECONDS)
    assert "department:acme/research" not in policies
    assert "department:acme/legal" in policies
    assert apply(config, SMALL) == 1
    assert "department:acme/research" in read_policies(config, PATIENCE_SECONDS)


def test_without_the_topic_the_error_says_what_to_do() -> None:
    """A cluster without topics is Stop with the command that makes them."""
    with (
        running_broker() as bootstrap,
        pytest.raises(KafkaFatalError, match="meterline topics apply"),
    ):
        read_policies(
            embedded_kafka(bootstrap),
            PATIENCE_SECONDS,
        )
