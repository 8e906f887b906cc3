"""The spool: what is on disk survives, what is torn is left out, what is too much is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterline.relay.settings import SpoolSettings
from meterline.relay.spool import (
    SealedBatch,
    Spool,
    SpoolFullError,
    SpoolInUseError,
    SpoolUnusableError,
    SpoolWriteError,
)


def batch(seq: int, size: int = 100, partition: int = 3) -> SealedBatch:
    return SealedBatch(f"r1/boot/{partition}", partition, seq, 7, bytes([seq % 256]) * size)


def values(spool: Spool) -> list[tuple[str, int, int, int, bytes]]:
    return [
        (place.lane, place.partition, place.seq, place.events, spool.read(place))
        for place in spool.leftover
    ]


@pytest.fixture
def settings(tmp_path: Path) -> SpoolSettings:
    return SpoolSettings(tmp_path / "spool")


@pytest.fixture
def spool(settings: SpoolSettings) -> Iterator[Spool]:
    opened = Spool(settings)
    yield opened
    opened.close()


def test_leftover_is_the_same_bytes(settings: SpoolSettings) -> None:
    """What one process spooled, the next one finds: same lane, seq, partition and bytes."""
    first = Spool(settings)
    for seq in (1, 2, 3):
        first.append(batch(seq))
    first.close()
    second = Spool(settings)
    assert values(second) == [("r1/boot/3", 3, seq, 7, bytes([seq]) * 100) for seq in (1, 2, 3)]
    second.close()


def test_acknowledged_batches_are_gone(settings: SpoolSettings) -> None:
    """A dropped batch is not found again, one that waits is."""
    first = Spool(settings)
    places = [first.append(batch(seq)) for seq in (1, 2, 3)]
    first.drop(places[1])
    first.close()
    second = Spool(settings)
    assert [place.seq for place in second.leftover] == [1, 3]
    assert second.batches_waiting == 2
    second.close()


def test_everything_dropped_leaves_no_bytes(spool: Spool, settings: SpoolSettings) -> None:
    """When the broker has everything the spool is empty on disk, not only in its index."""
    for place in [spool.append(batch(seq)) for seq in range(1, 50)]:
        spool.drop(place)
    assert spool.bytes_used == 0
    assert sum(path.stat().st_size for path in settings.directory.glob("*.segment")) == 0


def test_full_segments_are_deleted(tmp_path: Path) -> None:
    """A file goes when the last of its batches is acknowledged, while later files wait."""
    spool = Spool(SpoolSettings(tmp_path, segment_bytes=1_000))
    places = [spool.append(batch(seq, 600)) for seq in range(1, 7)]
    assert len(list(tmp_path.glob("*.segment"))) == 3
    spool.drop(places[0])
    spool.drop(places[1])
    assert len(list(tmp_path.glob("*.segment"))) == 2
    assert [spool.read(place)[:1] for place in places[2:]] == [b"\3", b"\4", b"\5", b"\6"]
    spool.close()


@pytest.mark.parametrize("cut", [1, 13, 40, 100, 130, 140])
def test_torn_tail_is_left_out(settings: SpoolSettings, cut: int) -> None:
    """A last frame cut anywhere is left out; the whole ones before it are kept."""
    first = Spool(settings)
    first.append(batch(1))
    end = first.append(batch(2)).offset
    first.close()
    path = next(settings.directory.glob("*.segment"))
    frame_bytes = path.stat().st_size - end
    os.truncate(path, path.stat().st_size - min(cut, frame_bytes - 1))
    second = Spool(settings)
    assert [place.seq for place in second.leftover] == [1]
    second.append(batch(9))
    second.close()
    third = Spool(settings)
    assert [place.seq for place in third.leftover] == [1, 9]
    third.close()


def test_damage_amid_good_frames_costs_one_batch(settings: SpoolSettings) -> None:
    """A frame whose checksum fails is skipped and the next good one is found."""
    first = Spool(settings)
    places = [first.append(batch(seq)) for seq in (1, 2, 3)]
    first.close()
    path = next(settings.directory.glob("*.segment"))
    content = bytearray(path.read_bytes())
    content[places[1].offset + 60] ^= 0xFF
    path.write_bytes(content)
    second = Spool(settings)
    assert [place.seq for place in second.leftover] == [1, 3]
    second.close()


def test_damage_found_while_reading_is_reported(spool: Spool, settings: SpoolSettings) -> None:
    """A batch that the disk changed is an error, never other bytes than were sealed."""
    place = spool.append(batch(1))
    path = next(settings.directory.glob("*.segment"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SpoolUnusableError, match="damaged"):
        spool.read(place)


def test_bytes_bound_keeps_the_oldest(tmp_path: Path) -> None:
    """At the bound the new batch is refused, the old ones stay, and drops make room again."""
    spool = Spool(SpoolSettings(tmp_path, bytes_max=10_000))
    places = [spool.append(batch(seq, 1_000)) for seq in range(1, 10)]
    with pytest.raises(SpoolFullError):
        spool.append(batch(10, 1_000))
    assert spool.bytes_used <= 10_000
    assert spool.read(places[0]) == b"\1" * 1_000
    spool.drop(places[0])
    spool.drop(places[1])
    spool.append(batch(42, 1_000))
    spool.close()


def test_batches_bound(tmp_path: Path) -> None:
    """The index in memory is bounded too."""
    spool = Spool(SpoolSettings(tmp_path, batches_max=3))
    for seq in (1, 2, 3):
        spool.append(batch(seq))
    with pytest.raises(SpoolFullError):
        spool.append(batch(4))
    spool.close()


class FailingDisk:
    """os.pwrite that writes half of a frame and then fails, while it is set to."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.torn = False

    def __call__(self, fd: int, data: bytes, offset: int) -> int:
        if self.error is None:
            return os.pwrite(fd, data, offset)
        if not self.torn:
            self.torn = True
            return os.pwrite(fd, data[: len(data) // 2], offset)
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_disk_refuses_and_recovers(settings: SpoolSettings, code: int) -> None:
    """A disk that refuses during a frame loses nothing that was there, and later writes are whole."""
    disk = FailingDisk()
    spool = Spool(settings, write=disk)
    spool.append(batch(1))
    disk.error = code
    with pytest.raises(SpoolWriteError) as raised:
        spool.append(batch(2))
    assert raised.value.cause == errno.errorcode[code]
    disk.error = None
    spool.append(batch(3))
    spool.close()
    again = Spool(settings)
    assert [place.seq for place in again.leftover] == [1, 3]
    again.close()


def test_real_file_size_limit(tmp_path: Path) -> None:
    """The kernel's own refusal (RLIMIT_FSIZE) is a SpoolWriteError, and what fitted is kept."""
    script = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
from meterline.relay.settings import SpoolSettings
from meterline.relay.spool import SealedBatch, Spool, SpoolWriteError
spool = Spool(SpoolSettings(Path({str(tmp_path)!r})))
kept = 0
try:
    while True:
        spool.append(SealedBatch("r/b/0", 0, kept + 1, 1, b"x" * 900))
        kept += 1
except SpoolWriteError as error:
    print(kept, error.cause)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["5", "EFBIG"]
    spool = Spool(SpoolSettings(tmp_path))
    assert [place.seq for place in spool.leftover] == [1, 2, 3, 4, 5]
    spool.close()


def test_second_emitter_is_refused(spool: Spool, settings: SpoolSettings) -> None:
    """Two emitters on one directory would write the same lanes: the second is refused, with the holder named."""
    with pytest.raises(SpoolInUseError, match=f"in use by process {os.getpid()}"):
        Spool(settings)
    spool.append(batch(1))


def test_directory_is_free_after_close(settings: SpoolSettings) -> None:
    """A closed spool can be opened again."""
    Spool(settings).close()
    Spool(settings).close()


def test_unusable_directory_is_one_clear_error(tmp_path: Path) -> None:
    """A path that is a file is refused with its name."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SpoolUnusableError, match=str(path)):
        Spool(SpoolSettings(path))


def test_sync_leaves_everything_readable(spool: Spool) -> None:
    """Syncing changes nothing that can be read, with and without anything new."""
    place = spool.append(batch(1))
    spool.sync()
    spool.sync()
    assert spool.read(place) == b"\1" * 100
