"""The disk spool: sealed batches wait here until the broker has them.

    directory/
        lock                        held (flock) by the one emitter that uses the directory
        000000000001.segment        frames, appended; deleted when every frame is acknowledged
        000000000002.segment

    frame:  magic  state  length  crc32 | partition  seq  events  lane length | lane | value
            4      1      4       4       4          8    4       2
                                          <------------- length bytes, checksummed ------------->

`state` is outside the checksum: an acknowledgement overwrites this one byte, which needs no space
on a full disk. A frame cut short by a crash fails its length or its checksum and is left out;
nothing was sent of it, because a frame is whole before its batch is sent.

Errors:
    SpoolError
    ├── SpoolInUseError     another emitter has the directory: choose another one
    ├── SpoolUnusableError  the directory cannot be used: repair it
    ├── SpoolFullError      the bound is reached: keep the events, try again later
    └── SpoolWriteError     the disk refuses (full, quota, broken): as above
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import structlog

from meterline.relay.settings import SpoolSettings
from meterline.schemas.errors import MeterlineError
from meterline.schemas.usage import MESSAGE_BYTES_MAX

log = structlog.get_logger("relay.spool")

Write = Callable[[int, bytes, int], int]
"""os.pwrite: file descriptor, bytes, offset; answers how many bytes were written."""

_MAGIC = b"MLS1"
_HEAD = Struct(">4sBII")  # magic, state, length, crc
_BODY = Struct(">IQIH")  # partition, seq, events, lane length
_STATE_OFFSET = len(_MAGIC)
_WAITING = 0
_ACKNOWLEDGED = b"\x01"
# A frame's body is a message and a lane id of at most 200 characters.
_BODY_BYTES_MAX = MESSAGE_BYTES_MAX + _BODY.size + 4 * 200
_SEGMENT_NAME = re.compile(r"(\d{12})\.segment")
# The lock file holds a process id.
_PID_BYTES_MAX = 20


class SpoolError(MeterlineError):
    """Root of this module's errors."""


class SpoolInUseError(SpoolError):
    """Another emitter has the directory."""


class SpoolUnusableError(SpoolError):
    """The directory cannot be created, locked or read."""


class SpoolFullError(SpoolError):
    """The configured bound is reached."""


class SpoolWriteError(SpoolError):
    """The operating system refused the write; `cause` is its errno's name."""

    def __init__(self, error: OSError) -> None:
        self.cause = errno.errorcode.get(error.errno or 0, "unknown")
        super().__init__(f"the spool cannot be written: {os.strerror(error.errno or 0)}")


class SealedBatch(NamedTuple):
    """One sealed message and where it goes; the same for every attempt to send it."""

    lane: str
    partition: int
    seq: int
    events: int
    value: bytes


class SpooledBatch(NamedTuple):
    """Where a batch is on disk; light, because an outage keeps many of them in memory."""

    lane: str
    partition: int
    seq: int
    events: int
    segment: int
    offset: int
    """Of the frame in its segment."""
    length: int
    """Of the frame's body."""


class _Segment:
    """One file and how many of its frames still wait for their acknowledgement."""

    __slots__ = ("fd", "path", "size", "waiting")

    def __init__(self, fd: int, path: Path, size: int) -> None:
        self.fd = fd
        self.path = path
        self.size = size
        self.waiting = 0


class Spool:
    """Batches on disk, in the order they were sealed.

    Thread-safe: one thread appends while another reads and acknowledges.
    """

    def __init__(self, settings: SpoolSettings, *, write: Write = os.pwrite) -> None:
        """Lock the directory and index what an earlier process left there.

        Reads the leftover once in full (about a second per GiB).

        Raises:
            SpoolInUseError, SpoolUnusableError.
        """
        self._settings = settings
        self._write = write
        self._mutex = threading.Lock()
        self._segments: dict[int, _Segment] = {}
        self._open: int | None = None  # number of the segment that is appended to
        self._next_segment = 1
        self._bytes = 0
        self._batches = 0
        self._unsynced = False
        lock_fd = _lock(settings.directory)
        self._directory_fd = os.open(settings.directory, os.O_RDONLY | os.O_CLOEXEC)
        self._own_fds: tuple[int, ...] = (self._directory_fd, lock_fd)
        try:
            self.leftover: tuple[SpooledBatch, ...] = tuple(self._recover())
        except OSError as error:
            self.close()
            message = f"spool directory {settings.directory}: {error.strerror}"
            raise SpoolUnusableError(message) from error

    @property
    def directory(self) -> Path:
        """The spool's directory."""
        return self._settings.directory

    @property
    def bytes_used(self) -> int:
        """Bytes of all segments; never above the configured bound."""
        return self._bytes

    @property
    def batches_waiting(self) -> int:
        """Batches without an acknowledgement."""
        return self._batches

    def append(self, batch: SealedBatch) -> SpooledBatch:
        """Write one batch; when this returns it survives the death of the process.

        Raises:
            SpoolFullError: the bound is reached; nothing was written.
            SpoolWriteError: the disk refused; what was half written is cut off again.
        """
        lane = batch.lane.encode()
        body = _BODY.pack(batch.partition, batch.seq, batch.events, len(lane)) + lane + batch.value
        frame = _HEAD.pack(_MAGIC, _WAITING, len(body), zlib.crc32(body)) + body
        with self._mutex:
            if (
                self._bytes + len(frame) > self._settings.bytes_max
                or self._batches >= self._settings.batches_max
            ):
                message = f"spool is full: {self._bytes} bytes, {self._batches} batches"
                raise SpoolFullError(message)
            try:
                number, segment = self._segment_to_append()
                _write_all(self._write, segment.fd, frame, segment.size)
            except OSError as error:
                self._cut_torn_frame()
                raise SpoolWriteError(error) from error
            offset = segment.size
            segment.size += len(frame)
            segment.waiting += 1
            self._bytes += len(frame)
            self._batches += 1
            self._unsynced = True
        return SpooledBatch(
            batch.lane, batch.partition, batch.seq, batch.events, number, offset, len(body)
        )

    def read(self, place: SpooledBatch) -> bytes:
        """The batch's message, byte for byte as it was sealed.

        Raises:
            SpoolUnusableError: the disk lost or changed it.
        """
        segment = self._segments[place.segment]
        try:
            frame = os.pread(segment.fd, _HEAD.size + place.length, place.offset)
        except OSError as error:
            message = f"{segment.path.name}: {error.strerror}"
            raise SpoolUnusableError(message) from error
        found = _parse(frame, 0)
        if found is None:
            message = f"{segment.path.name}: frame at {place.offset} is damaged"
            raise SpoolUnusableError(message)
        return found.value

    def drop(self, place: SpooledBatch) -> None:
        """Forget an acknowledged batch; its file goes with its last one.

        An acknowledgement that cannot be written is not an error: the batch would be sent once
        more after a restart, and its lane and sequence number make that harmless.
        """
        with self._mutex:
            segment = self._segments[place.segment]
            segment.waiting -= 1
            self._batches -= 1
            try:
                if segment.waiting:
                    os.pwrite(segment.fd, _ACKNOWLEDGED, place.offset + _STATE_OFFSET)
                elif place.segment == self._open:
                    # Emptied, not deleted: while the broker answers one small file is enough.
                    os.ftruncate(segment.fd, 0)
                    self._bytes -= segment.size
                    segment.size = 0
                else:
                    self._delete(place.segment)
            except OSError as error:
                log.warning("spool.acknowledgement_not_written", error=error.strerror)

    def sync(self) -> None:
        """Make everything appended so far survive a power cut; does nothing if nothing is new."""
        with self._mutex:
            if not self._unsynced or self._open is None:
                return
            self._unsynced = False
            segment = self._segments[self._open]
            # A second descriptor: the segment may be deleted while the disk is busy syncing.
            fd = os.dup(segment.fd)
        try:
            os.fsync(fd)
        except OSError as error:
            # One line, not a traceback: the operator needs the disk's word.
            log.error("spool.sync_failed", error=error.strerror)  # noqa: TRY400
        finally:
            os.close(fd)

    def close(self) -> None:
        """Release the directory; what waits stays for the next start."""
        with self._mutex:
            for segment in self._segments.values():
                os.close(segment.fd)
            self._segments.clear()
            self._open = None
            # The lock last: then the directory is really free.
            for fd in self._own_fds:
                os.close(fd)
            self._own_fds = ()

    def _segment_to_append(self) -> tuple[int, _Segment]:
        if self._open is not None:
            current = self._segments[self._open]
            if current.size < self._segment_bytes():
                return self._open, current
            if self._unsynced:
                # The interval's sync looks at the newest file only.
                os.fsync(current.fd)
        number = self._next_segment
        path = self._settings.directory / f"{number:012d}.segment"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._next_segment += 1
        self._segments[number] = _Segment(fd, path, 0)
        self._open = number
        # A power cut could otherwise take the file's name with all that was synced in it.
        os.fsync(self._directory_fd)
        return number, self._segments[number]

    def _segment_bytes(self) -> int:
        # Eight files or more, so that a small bound too is freed piece by piece.
        return min(self._settings.segment_bytes, self._settings.bytes_max // 8)

    def _cut_torn_frame(self) -> None:
        """Take back half a frame, or append to another file if even that fails."""
        if self._open is None:
            return
        segment = self._segments[self._open]
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError:
            number, self._open = self._open, None
            if not segment.waiting:
                self._delete(number)

    def _delete(self, number: int) -> None:
        segment = self._segments.pop(number)
        if self._open == number:
            self._open = None
        self._bytes -= segment.size
        os.close(segment.fd)
        try:
            segment.path.unlink()
        except OSError as error:
            # Every frame in it is acknowledged: re-reading it costs a repeat, nothing else.
            log.warning("spool.segment_not_deleted", name=segment.path.name, error=error.strerror)

    def _recover(self) -> Iterator[SpooledBatch]:
        """Index the segments of earlier processes; they are never appended to again."""
        numbered = sorted(
            (int(match[1]), path)
            for path in self._settings.directory.iterdir()
            if (match := _SEGMENT_NAME.fullmatch(path.name))
        )
        for number, path in numbered:
            self._next_segment = number + 1
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            content = path.read_bytes()
            segment = _Segment(fd, path, len(content))
            self._segments[number] = segment
            self._bytes += segment.size
            for offset, found in _frames(content, path.name):
                length = found.end - offset - _HEAD.size
                segment.waiting += 1
                self._batches += 1
                yield SpooledBatch(
                    found.lane, found.partition, found.seq, found.events, number, offset, length
                )
            if not segment.waiting:
                self._delete(number)


class _Frame(NamedTuple):
    lane: str
    partition: int
    seq: int
    events: int
    value: bytes
    acknowledged: bool
    end: int


def _frames(content: bytes, name: str) -> Iterator[tuple[int, _Frame]]:
    """The whole frames of one segment that still wait, with their offsets."""
    offset = 0
    while offset < len(content):
        found = _parse(content, offset)
        if found is None:
            # A torn tail, or a damaged frame between good ones: look for the next good one.
            following = content.find(_MAGIC, offset + 1)
            end = len(content) if following < 0 else following
            log.warning("spool.torn_frame", name=name, offset=offset, bytes_skipped=end - offset)
            offset = end
            continue
        if not found.acknowledged:
            yield offset, found
        offset = found.end


def _parse(content: bytes, offset: int) -> _Frame | None:
    """The frame at an offset, or None if it is not whole."""
    start = offset + _HEAD.size
    if start + _BODY.size > len(content):
        return None
    magic, state, length, checksum = _HEAD.unpack_from(content, offset)
    end = start + length
    if magic != _MAGIC or not _BODY.size <= length <= _BODY_BYTES_MAX or end > len(content):
        return None
    if zlib.crc32(memoryview(content)[start:end]) != checksum:
        return None
    partition, seq, events, lane_length = _BODY.unpack_from(content, start)
    lane_end = start + _BODY.size + lane_length
    lane = content[start + _BODY.size : lane_end].decode()
    return _Frame(lane, partition, seq, events, content[lane_end:end], state != _WAITING, end)


def _write_all(write: Write, fd: int, frame: bytes, offset: int) -> None:
    written = 0
    while written < len(frame):
        count = write(fd, frame[written:] if written else frame, offset + written)
        if not count:
            # A file system that writes nothing without an error would loop here without end.
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += count


def _lock(directory: Path) -> int:
    """Take the directory for this process; the operating system frees it when the process dies."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"spool directory {directory}: {error.strerror}"
        raise SpoolUnusableError(message) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(fd, _PID_BYTES_MAX).decode(errors="replace").strip()
        os.close(fd)
        message = (
            f"spool directory {directory} is in use by process {holder or 'unknown'}: "
            "give every relay process a directory of its own"
        )
        raise SpoolInUseError(message) from error
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    except OSError as error:
        # The lock holds without the note; a full disk must not keep a relay from starting.
        log.warning("spool.lock_note_not_written", error=error.strerror)
    return fd
