"""The small parts of the embedded servers."""

import gzip
import io
import zlib
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped] # ships no types
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from meterline.embedded.core.supervision import RestartPolicy, backoff_seconds
from meterline.embedded.decoding import BrokenBodyError, Decoder, UnknownEncodingError
from meterline.embedded.directories import own_directory
from meterline.embedded.errors import DataDirectoryError, PortBusyError, exit_with
from meterline.embedded.insert_buffer import InsertBuffer
from meterline.embedded.kafka import cluster_id, server_properties
from meterline.embedded.processes import tail
from meterline.embedded.workerlog import FILE_BYTES_MAX, LINE_BYTES_MAX, LineSplitter, WorkerLog

PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "": bytes,
}


@given(
    encoding=st.sampled_from(sorted(PACKERS)),
    frames=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4),
    step=st.integers(min_value=1, max_value=64),
)
def test_frames_are_decoded_wherever_they_are_cut(
    encoding: str, frames: list[bytes], step: int
) -> None:
    """Any number of frames in any pieces gives the bytes that were packed."""
    packed = b"".join(PACKERS[encoding](frame) for frame in frames)
    decoder = Decoder(encoding)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(decoder.decode(piece) for piece in pieces) == b"".join(frames)
    decoder.finish()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_truncated_body_is_refused(encoding: str) -> None:
    """A body that ends within a frame is an error, not a short insert."""
    decoder = Decoder(encoding)
    decoder.decode(PACKERS[encoding](b"rows" * 100)[:-3])
    with pytest.raises(BrokenBodyError):
        decoder.finish()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_wrongly_labelled_body_is_refused(encoding: str) -> None:
    """Plain text said to be compressed is an error."""
    with pytest.raises(BrokenBodyError):
        Decoder(encoding).decode(b"SELECT 1 and more text than any head")


def test_an_unknown_encoding_is_refused() -> None:
    """An encoding that is not served is named in the error."""
    with pytest.raises(UnknownEncodingError, match="snappy"):
        Decoder("snappy")


@given(failures=st.integers(min_value=1, max_value=10_000))
def test_backoff_grows_to_its_bound(failures: int) -> None:
    """The pause never shrinks with more failures and never passes the bound."""
    policy = RestartPolicy(backoff_first_seconds=0.5, backoff_max_seconds=30.0)
    assert backoff_seconds(policy, 1) == 0.5
    assert 0.5 <= backoff_seconds(policy, failures) <= backoff_seconds(policy, failures + 1) <= 30.0


@given(lines=st.lists(st.text("abcü \t", max_size=50), max_size=20), step=st.integers(1, 40))
def test_lines_are_found_wherever_the_output_is_cut(lines: list[str], step: int) -> None:
    """Output in any pieces gives its lines, the last without an end included."""
    data = "\n".join([*lines, "end"]).encode()
    splitter = LineSplitter()
    found = [
        line for at in range(0, len(data), step) for line in splitter.feed(data[at : at + step])
    ]
    assert found + splitter.finish() == [*lines, "end"]
    assert splitter.last[-1] == "end"


def test_an_endless_line_is_cut() -> None:
    """A line without an end does not grow in memory."""
    splitter = LineSplitter()
    found = splitter.feed(b"x" * (3 * LINE_BYTES_MAX))
    assert [len(line) for line in found] == [LINE_BYTES_MAX] * 3
    assert splitter.finish() == []


def test_log_lines_are_aligned_and_coloured() -> None:
    """Every line has its worker's name, aligned; colours only where wanted."""
    stream = io.StringIO()
    log = WorkerLog(stream, ("broker", "streams"), colour=True)
    log.write("broker", "ready")
    log.write("streams", "ready")
    log.close()
    first, second = stream.getvalue().splitlines()
    assert first == "\x1b[36mbroker  |\x1b[0m ready"
    assert second == "\x1b[32mstreams |\x1b[0m ready"


def test_the_log_file_is_turned_over(tmp_path: Path) -> None:
    """The file never passes its bound; the one before is kept."""
    path = tmp_path / "workers.log"
    path.write_bytes(b"x" * FILE_BYTES_MAX)
    log = WorkerLog(io.StringIO(), ("w",), file=path)
    log.write("w", "first line of the new file")
    log.close()
    assert path.read_text() == "w | first line of the new file\n"
    assert path.with_name("workers.log.1").stat().st_size == FILE_BYTES_MAX


def test_a_closed_stream_stops_nothing(tmp_path: Path) -> None:
    """When the log has no reader any more the file still gets every line."""
    stream = io.StringIO()
    stream.close()
    log = WorkerLog(stream, ("w",), colour=False, file=tmp_path / "workers.log")
    log.write("w", "one")
    log.write("w", "two")
    log.close()
    assert (tmp_path / "workers.log").read_text() == "w | one\nw | two\n"


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """The second owner is refused until the first lets go."""
    owned = own_directory(tmp_path / "new" / "data")
    with pytest.raises(DataDirectoryError, match="is in use by another process"):
        own_directory(owned.path)
    owned.release()
    own_directory(owned.path).release()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """Too little room is an error that says how much is needed."""
    with pytest.raises(DataDirectoryError, match=r"the disk of .* is full .* free some space"):
        own_directory(tmp_path, free_bytes_min=10**18)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A path below a file is an error that says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match="choose another data directory"):
        own_directory(tmp_path / "file" / "data")


def test_many_rows_move_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool past its memory bound goes on in an unnamed file with the same content."""
    monkeypatch.setattr("meterline.embedded.insert_buffer.MEMORY_BYTES_MAX", 10)
    spool = InsertBuffer(tmp_path)
    for piece in (b"0123456", b"789abc", b"def"):
        spool.write(piece)
    assert Path(spool.path).read_bytes() == b"0123456789abcdef"
    assert spool.size == 16
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_the_cluster_id_is_kept(tmp_path: Path) -> None:
    """A data directory has one cluster id of the form that Kafka wants."""
    first = cluster_id(tmp_path)
    assert len(first) == 22
    assert cluster_id(tmp_path) == first
    (tmp_path / "other").mkdir()
    assert cluster_id(tmp_path / "other") != first


def test_the_broker_listens_on_this_machine_only(tmp_path: Path) -> None:
    """No listener of the generated configuration is reachable from outside."""
    lines = server_properties(tmp_path, 1, 2).splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert values["auto.create.topics.enable"] == "false"


def test_last_words_are_one_line() -> None:
    """The tail of an output is its last lines in one, or says that there is none."""
    assert tail(b"a\n\nb\nc\nd\n") == "b | c | d"
    assert tail(b"\n \n") == "no output"


def test_an_error_ends_a_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`exit_with` prints the message after the program's name and exits with 2."""
    with pytest.raises(SystemExit) as caught:
        exit_with("broker", PortBusyError(9092))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("broker: port 9092 of 127.0.0.1 is in use: ")
