"""A server's data directory: made, owned by one process, with room to write."""

import fcntl
import os
import shutil
from pathlib import Path

from meterline.embedded.errors import DataDirectoryError

# Below this nothing is started: the engine would fail later, in the middle of a write.
FREE_BYTES_MIN = 64 * 1024 * 1024
_LOCK_NAME = ".lock"
_MEBIBYTE = 1024 * 1024


class OwnedDirectory:
    """A directory that this process owns until it ends, even by SIGKILL (an flock)."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def keep_across_exec(self) -> None:
        """Let the program that replaces this one go on owning the directory."""
        os.set_inheritable(self._lock, True)  # noqa: FBT003 - positional only

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._lock)


def own_directory(path: Path, *, free_bytes_min: int = FREE_BYTES_MIN) -> OwnedDirectory:
    """Make `path` if need be and own it; DataDirectoryError if in use, full or not writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"cannot write to {path} ({error.strerror}): choose another data directory"
        raise DataDirectoryError(message) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        message = f"{path} is in use by another process: stop it, or choose another data directory"
        raise DataDirectoryError(message) from error
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < free_bytes_min:
        os.close(lock)
        message = (
            f"the disk of {path} is full ({free_bytes // _MEBIBYTE} MiB free, "
            f"{free_bytes_min // _MEBIBYTE} needed): free some space, or choose another directory"
        )
        raise DataDirectoryError(message)
    return OwnedDirectory(path, lock)
