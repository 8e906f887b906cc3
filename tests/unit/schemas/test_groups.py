"""The registry of consumer groups is the one place that names them."""

from __future__ import annotations

from meterline.alerting.settings import AlertingSettings, NotifySettings
from meterline.schemas.groups import GROUPS, Group, group_spec, readers_of
from meterline.schemas.topics import Topic
from meterline.sinks.settings import SinkSettings
from meterline.streams.settings import StreamsSettings


def test_groups_keep_their_spelling() -> None:
    """A group that was renamed would read its topics from the beginning again."""
    assert [group.value for group in Group] == [
        "meterline-streams",
        "meterline-sink",
        "meterline-notify",
    ]
    assert [spec.group for spec in GROUPS] == list(Group)


def test_workers_join_the_groups_of_the_registry() -> None:
    """What lag is asked of is what the workers commit to."""
    assert StreamsSettings(bootstrap="127.0.0.1:9092").app_id == Group.STREAMS
    assert AlertingSettings().streams_group == Group.STREAMS
    assert SinkSettings().group == Group.SINK
    assert tuple(SinkSettings().policies) == group_spec(Group.SINK).topics
    assert NotifySettings().group == Group.NOTIFY


def test_lag_is_that_of_the_readers_of_usage_events() -> None:
    """Streams and sink, in this order, are behind or not."""
    assert [spec.worker for spec in readers_of(Topic.USAGE_EVENTS)] == ["streams", "sink"]
