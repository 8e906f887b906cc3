"""An INSERT's rows on their way into the engine: a file without a name."""

import os
import sys
import tempfile
from pathlib import Path

# Up to here the rows wait in memory; a usual insert of the pipeline is some MiB.
MEMORY_BYTES_MAX = 64 * 1024 * 1024
_COPY_BYTES = 1024 * 1024


class InsertBuffer:
    """Bytes that the engine reads as a file; in memory, or on disk when they are many.

    On Linux the file has no name in any directory: nothing is left behind, whatever is killed.
    Elsewhere it is on disk from the start and removed by `close`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._named: Path | None = None
        self._in_memory = sys.platform == "linux"
        self.size = 0
        if sys.platform == "linux":
            self._file = os.memfd_create("insert")
        else:
            self._file, name = tempfile.mkstemp(prefix="insert-", dir=directory)
            self._named = Path(name)

    @property
    def path(self) -> str:
        """Where this process can open the file."""
        return str(self._named or f"/proc/self/fd/{self._file}")

    def write(self, data: bytes) -> None:
        """Append `data`; OSError if the disk is full."""
        if self._in_memory and self.size + len(data) > MEMORY_BYTES_MAX:
            self._move_to_disk()
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self.size += len(data)

    def _move_to_disk(self) -> None:
        if sys.platform == "linux":
            disk = os.open(self._directory, os.O_TMPFILE | os.O_RDWR, 0o600)
            memory, self._file = self._file, disk
            self._in_memory = False
            try:
                os.lseek(memory, 0, os.SEEK_SET)
                while os.sendfile(disk, memory, None, _COPY_BYTES):
                    pass
            finally:
                os.close(memory)

    def close(self) -> None:
        """Give the room back."""
        os.close(self._file)
        if self._named is not None:
            self._named.unlink(missing_ok=True)
