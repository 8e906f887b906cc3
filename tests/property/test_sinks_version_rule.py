"""The version rule against a plain model of what the streams count."""

from hypothesis import given
from hypothesis import strategies as st

from meterline.sinks.core.versions import Position, retraction_version, row_version

# (sorting key, body) of one event id, in the order of the log; body 0 at key 0 is the original's.
occurrences = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8
)


def replacing(rows: list[tuple[int, int, bool, int]]) -> dict[int, int]:
    """What ReplacingMergeTree keeps: per key the greatest version, unless it is deleted."""
    best: dict[int, tuple[int, bool, int]] = {}
    for key, version, deleted, body in rows:
        if key not in best or version >= best[key][0]:
            best[key] = (version, deleted, body)
    return {key: body for key, (_, deleted, body) in best.items() if not deleted}


@given(log=occurrences, data=st.data())
def test_stored_row_is_the_first_occurrence(
    log: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Rows and retractions in any order, each any number of times, leave exactly the first event."""
    rows: list[tuple[int, int, bool, int]] = []
    original = log[0][:2]
    epoch, offset = 0, 0
    for key, body, step in log:
        # A step of 2 is a lost log: offsets begin again, the epoch rises.
        epoch, offset = (epoch + 1, 0) if step == 2 else (epoch, offset + step)
        position = Position(epoch, offset, len(rows) % 512)
        rows.append((key, row_version(position), False, body))
        if (key, body) != original:
            # The streams refuse it as a conflict: the sink learns of it by a dead letter.
            rows.append((key, retraction_version(position), True, body))
    arrived = data.draw(st.permutations(rows + rows[::2]))
    assert replacing(arrived) == dict([original])
