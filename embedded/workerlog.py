"""One log for all workers: every line with the name of its worker before it."""

import threading
from collections import deque
from pathlib import Path
from typing import TextIO

# A line without an end must not fill memory: it is cut into lines of this length.
LINE_BYTES_MAX = 16_384
# What is kept per worker to explain its end.
LAST_LINES = 5
# Two files of this size at most: the current one and the one before.
FILE_BYTES_MAX = 16 * 1024 * 1024
# Readable on dark and light screens; the name's place in the list chooses.
_COLOURS = ("36", "32", "33", "35", "34", "96", "92", "93", "95", "94")


class WorkerLog:
    """Writes lines to a stream and, if wanted, to a file that is turned over when full.

    A stream that cannot be written any more (a closed pipe) is left alone: the workers go on.
    """

    def __init__(
        self,
        stream: TextIO,
        names: tuple[str, ...],
        *,
        colour: bool | None = None,
        file: Path | None = None,
    ) -> None:
        self._stream: TextIO | None = stream
        self._width = max((len(name) for name in names), default=0)
        coloured = stream.isatty() if colour is None else colour
        self._colours = {
            name: _COLOURS[place % len(_COLOURS)] if coloured else ""
            for place, name in enumerate(names)
        }
        self._path = file
        self._file = file.open("ab") if file is not None else None
        # The monitor writes workers' lines, other threads the supervisor's own.
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        """Write one line of the worker `name`."""
        padded = name.ljust(self._width)
        colour = self._colours.get(name, "")
        head = f"\x1b[{colour}m{padded} |\x1b[0m" if colour else f"{padded} |"
        with self._lock:
            self._write_stream(f"{head} {line}\n")
            self._write_file(f"{padded} | {line}\n".encode(errors="replace"))

    def _write_stream(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None

    def _write_file(self, line: bytes) -> None:
        if self._file is None or self._path is None:
            return
        try:
            if self._file.tell() + len(line) > FILE_BYTES_MAX:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("ab")
            self._file.write(line)
            self._file.flush()
        except OSError:
            # A full disk takes the file, not the workers.
            self._file = None

    def close(self) -> None:
        """Close the file; the stream belongs to the caller."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class LineSplitter:
    """Turns the bytes of one worker's output into lines, and remembers the last ones."""

    def __init__(self) -> None:
        self._rest = b""
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            complete.append(self._rest)
            self._rest = b""
        return self._keep(complete)

    def finish(self) -> list[str]:
        """What is left when the output has ended."""
        rest, self._rest = self._rest, b""
        return self._keep([rest] if rest else [])

    def _keep(self, raw: list[bytes]) -> list[str]:
        lines = [
            piece.decode(errors="replace").rstrip("\r") for line in raw for piece in _pieces(line)
        ]
        self.last.extend(line for line in lines if line.strip())
        return lines


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + LINE_BYTES_MAX] for at in range(0, len(line), LINE_BYTES_MAX)] or [b""]
