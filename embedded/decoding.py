"""Request bodies: the compressions that ClickHouse's clients send."""

import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame  # type: ignore[import-untyped] # ships no types
from backports import zstd

from meterline.embedded.errors import EmbeddedError

_GZIP_WINDOW = 31  # zlib's code for "with a gzip head"


class UnknownEncodingError(EmbeddedError):
    """A Content-Encoding that is not supported."""


class BrokenBodyError(EmbeddedError):
    """The body is not what its Content-Encoding says, or it ends too early."""


class _Frame(Protocol):
    """One compressed frame; three libraries agree on these names."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_FRAMES: dict[str, Callable[[], _Frame]] = {
    "gzip": lambda: zlib.decompressobj(_GZIP_WINDOW),
    "deflate": zlib.decompressobj,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
}


class Decoder:
    """Turns a body's bytes into plain ones, piece by piece; frames may follow each other."""

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", *_FRAMES):
            raise UnknownEncodingError(encoding)
        self._new_frame = _FRAMES.get(name)
        self._frame: _Frame | None = None

    def decode(self, data: bytes) -> bytes:
        """The plain bytes that `data` completes; BrokenBodyError."""
        if self._new_frame is None:
            return data
        plain: list[bytes] = []
        try:
            while data:
                if self._frame is None:
                    self._frame = self._new_frame()
                plain.append(self._frame.decompress(data))
                data = b""
                if self._frame.eof:
                    # clickhouse-connect makes every block its own frame.
                    data = self._frame.unused_data or b""
                    self._frame = None
        except (zlib.error, zstd.ZstdError, RuntimeError) as error:
            raise BrokenBodyError(str(error)) from error
        return b"".join(plain)

    def finish(self) -> None:
        """Say that the body has ended; BrokenBodyError if a frame has not."""
        if self._frame is not None:
            message = "the compressed body ends in the middle of a frame"
            raise BrokenBodyError(message)
