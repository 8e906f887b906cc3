"""Assignment of keys, departments and models to requests."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from meterline.operations.replay.assign import MODELS, Assigner, department_names
from meterline.operations.replay.malformed import CORRUPTIONS, broken_message
from meterline.operations.replay.traces import TraceRow
from meterline.pricing.catalogue_reader import load_catalogue
from meterline.schemas.codec import decode_usage, fault
from meterline.schemas.usage import UsageEvent

NOW = 1_795_000_000_000


def events(count: int, *, keys: int = 200, departments: int = 8, seed: int = 7) -> list[UsageEvent]:
    assigner = Assigner(organisation="acme", keys=keys, departments=departments, seed=seed)
    row = TraceRow(0, 1_000, 200)
    return [assigner.event(row, f"r-{number}", NOW, "replay-1") for number in range(count)]


def test_same_seed_same_events() -> None:
    """A seed decides everything; another seed assigns differently."""
    assert events(200) == events(200)
    assert events(200) != events(200, seed=8)


def test_every_key_belongs_to_one_department_and_project() -> None:
    """A key never moves between departments or projects."""
    homes = defaultdict(set)
    for event in events(5_000):
        homes[event.key].add((event.department, event.project))
    assert all(len(found) == 1 for found in homes.values())


def test_a_few_keys_are_heavy() -> None:
    """A tenth of the keys makes more than half of the requests, the first one the most."""
    counts = Counter(event.key for event in events(20_000))
    heavy = counts.most_common(20)
    assert heavy[0][0] == "k-0001"
    assert sum(count for _, count in heavy) > 10_000
    assert len(counts) > 190


def test_departments_and_models_are_all_used() -> None:
    """Every department and every model gets traffic, at known prices."""
    made = events(20_000)
    assert {event.department for event in made} == set(department_names(8))
    assert {event.model for event in made} == {choice.model for choice in MODELS}
    catalogue = load_catalogue()
    assert all(catalogue.rate(event).priced for event in made[:500])


def test_departments_past_the_list_are_numbered() -> None:
    """More departments than names get numbers, each with at least one key."""
    assert department_names(10)[-2:] == ("department-9", "department-10")
    assigner = Assigner(organisation="acme", keys=10, departments=10, seed=1)
    assert {profile.department for profile in assigner.profiles} == set(department_names(10))


def test_events_are_acceptable() -> None:
    """What is made passes the pipeline's own checks, with cached and reasoning tokens in it."""
    made = events(2_000)
    assert all(fault(event, NOW) is None for event in made)
    assert any(event.cache_read_tokens for event in made)
    assert any(event.cache_write_tokens for event in made)
    assert any(event.reasoning_tokens for event in made)


def test_tiny_requests_are_acceptable() -> None:
    """Requests of no and of one token pass as well."""
    assigner = Assigner(organisation="acme", keys=3, departments=1, seed=1)
    for tokens in (0, 1):
        row = TraceRow(0, tokens, tokens)
        made = [assigner.event(row, "r", NOW, "replay-1") for _ in range(200)]
        assert all(fault(event, NOW) is None for event in made)


def test_broken_messages_get_their_reasons() -> None:
    """Every kind of broken message is refused by the decoder, for the reason it was made for."""
    draw = random.Random(1)
    seen = set()
    for number in range(300):
        reason, value = broken_message(draw, f"b-{number}", NOW, "acme")
        decoded = decode_usage(value, NOW)
        assert not decoded.events
        assert [reject.reason for reject in decoded.rejects] == [reason]
        seen.add(reason)
    assert seen == CORRUPTIONS.keys()
