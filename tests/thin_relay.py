"""The wheel works beside a gateway that has modules of our folders' names.

Run by `make thin-relay`: builds the wheel from a clean copy of the tree, and again from the source
distribution; installs it with the `relay` extra into a fresh environment next to a FastAPI program
that has its own `schemas.py`, `app.py`, `relay.py` and `tests/`, and runs both. Not a pytest test:
it is about what is present in, and absent from, an environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.name for path in (ROOT / "src" / "meterline").iterdir() if path.is_symlink())
# Downloads included, on a slow line.
STEP_SECONDS_MAX = 600
ABSENT = ("faust", "aiokafka", "clickhouse_connect", "apscheduler", "chdb", "httpx", "typer")
# What a working copy holds beside what is built.
NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".meterline",
)
PROBE = f"""
import importlib.util as util
present = [name for name in {ABSENT!r} if util.find_spec(name)]
assert not present, f"the relay extra brought {{present}}"
# In Python, the checksum of 100 events takes 6 ms of the gateway's processor.
from kafka.record import util as checksums
assert checksums.crc32c_c is not None, "checksums are made in Python: crc32c is missing"
"""
# The gateway. Its modules have the names of Meterline's folders.
PROGRAM = {
    "schemas.py": '''
"""What the gateway takes and gives."""
from pydantic import BaseModel


class Question(BaseModel):
    key: str
    model: str


class Answer(BaseModel):
    text: str
''',
    "relay.py": '''
"""The gateway's use of Meterline."""
import time
from pathlib import Path

from meterline.backends.kafka.config import KafkaConfig
from meterline.relay.client import RelayClient
from meterline.relay.gate import Admission, GateRequest
from meterline.relay.responses import HttpRefusal, refusal
from meterline.relay.settings import RelaySettings, SpoolSettings
from meterline.schemas.metrics import NoMeter
from meterline.schemas.policy import ScopePolicy
from meterline.schemas.usage import UsageEvent
from schemas import Question


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_client(directory: Path) -> RelayClient:
    settings = RelaySettings("r1", KafkaConfig("127.0.0.1:1"), SpoolSettings(directory))
    client = RelayClient(settings, now_ms, NoMeter())
    client.gate.apply_policy(ScopePolicy(scope="key:acme/k-2", disabled=True), now_ms())
    return client


def refused(client: RelayClient, question: Question) -> HttpRefusal | None:
    decision = client.decide(GateRequest("acme", question.key, question.model))
    return None if decision.admission is Admission.ADMIT else refusal(decision)


def record(client: RelayClient, question: Question) -> bool:
    event = UsageEvent(
        id="e-1", time_ms=now_ms(), organisation="acme", key=question.key, model=question.model,
        input_tokens=7, output_tokens=5,
    )
    return client.record(event).value == "accepted"
''',
    "app.py": '''
"""The gateway."""
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response

import relay
from schemas import Answer, Question


def new_app(directory: Path) -> FastAPI:
    client = relay.new_client(directory)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        client.start()
        yield
        client.close(0.1)

    app = FastAPI(lifespan=running)

    @app.post("/ask", response_model=Answer)
    def ask(question: Question) -> Answer | Response:
        refusal = relay.refused(client, question)
        if refusal is not None:
            return Response(refusal.body, refusal.status, dict(refusal.headers))
        assert relay.record(client, question)
        return Answer(text="yes")

    return app


class Server:
    """The gateway on a free port of this machine."""

    def __init__(self, directory: Path) -> None:
        config = uvicorn.Config(new_app(directory), port=0, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> int:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the gateway did not start"
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
''',
    "tests/__init__.py": '"""The gateway\'s own tests."""\n',
    "tests/test_app.py": '''
"""Run with unittest: the fresh environment has no pytest."""
import json
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import app
import relay
import schemas
import tests


def post(port: int, key: str) -> tuple[int, str, dict[str, object]]:
    body = json.dumps({"key": key, "model": "gpt-4.1"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ask", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers["content-type"], json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], json.load(error)


class TestApp(unittest.TestCase):
    def test_modules_are_the_programs_own(self) -> None:
        here = Path(__file__).resolve().parents[1]
        for module in (app, relay, schemas, tests):
            assert module.__file__ is not None
            self.assertTrue(Path(module.__file__).resolve().is_relative_to(here), module)

    def test_one_is_admitted_and_one_refused(self) -> None:
        with tempfile.TemporaryDirectory() as folder, app.Server(Path(folder)) as port:
            self.assertEqual(post(port, "k-1"), (200, "application/json", {"text": "yes"}))
            status, kind, document = post(port, "k-2")
            self.assertEqual((status, kind), (403, "application/problem+json"))
            self.assertEqual(document["reason"], "disabled")
''',
}
MISTYPED = """
from meterline.relay.client import RelayClient


def ask(client: RelayClient) -> int:
    return client.decide("not a request")
"""


@dataclass(frozen=True)
class Environment:
    """A fresh environment and the program beside it."""

    python: Path
    program: Path

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run its Python in the program's folder."""
        return run([str(self.python), *arguments], self.program, check=check)

    def install(self, *distributions: str) -> None:
        """Install from the package registry, or a file."""
        self.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *distributions)


def run(
    command: list[str], folder: Path, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command; what it said goes into the error when it fails."""
    done = subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True, timeout=STEP_SECONDS_MAX
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def new_environment(folder: Path) -> Environment:
    """An environment of its own, and the program's files."""
    venv.create(folder / "venv", with_pip=True)
    program = folder / "program"
    for name, text in PROGRAM.items():
        path = program / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
    return Environment(folder / "venv" / "bin" / "python", program)


def build(environment: Environment, folder: Path) -> tuple[Path, Path]:
    """The wheel of a clean copy of the tree, and the wheel of its source distribution."""
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=NOT_COPIED)
    run(
        [str(environment.python), "-m", "build", "--outdir", str(folder / "sdist"), "--sdist"],
        source,
    )
    direct = wheel(environment, source, folder / "direct")
    (archive,) = (folder / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return direct, wheel(environment, unpacked, folder / "from-sdist")


def wheel(environment: Environment, source: Path, target: Path) -> Path:
    """Build one wheel."""
    run([str(environment.python), "-m", "build", "--outdir", str(target), "--wheel"], source)
    (built,) = target.glob("*.whl")
    return built


def names(built: Path) -> list[str]:
    """What a wheel holds."""
    with zipfile.ZipFile(built) as file:
        return sorted(file.namelist())


def check_wheels(direct: Path, from_sdist: Path) -> None:
    """One top-level package, typed, with every module; the same by both ways."""
    found = names(direct)
    assert found == names(from_sdist), set(found) ^ set(names(from_sdist))
    top = {name.partition("/")[0] for name in found if ".dist-info/" not in name}
    assert top == {"meterline"}, top
    assert "meterline/py.typed" in found
    modules = {
        f"meterline/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert modules <= set(found), modules - set(found)


def check_absent(environment: Environment) -> None:
    """The extra brings no pipeline, and checksums in C."""
    environment.run("-c", PROBE)


def check_program(environment: Environment) -> None:
    """The program's own modules and the SDK run in one process."""
    environment.install("fastapi", "uvicorn")
    done = environment.run("-m", "unittest", "-v", "tests.test_app", check=False)
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr, done.stderr


def check_types(environment: Environment) -> None:
    """Strict mypy takes the program's use of the SDK, and finds a wrong one."""
    environment.install("mypy")
    environment.run("-m", "mypy", "--strict", "schemas.py", "relay.py", "app.py")
    (environment.program / "mistyped.py").write_text(MISTYPED)
    done = environment.run("-m", "mypy", "--strict", "mistyped.py", check=False)
    assert done.stdout.count("error:") == 2, done.stdout
    assert 'expected "GateRequest"' in done.stdout, done.stdout


def check_command(environment: Environment) -> None:
    """The command says what to install, whatever is asked of it."""
    command = str(environment.python.with_name("meterline"))
    for arguments in (["--version"], ["up"], []):
        done = run([command, *arguments], environment.program, check=False)
        said = done.stdout + done.stderr
        assert done.returncode != 0, said
        assert "pip install 'meterline[server]'" in said, said
        assert "Traceback" not in said, said


def main() -> int:
    """Build, install, run the checks; one line each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = new_environment(folder / "builder")
        builder.install("build")
        direct, from_sdist = build(builder, folder)
        check_wheels(direct, from_sdist)
        print("wheel: the top level is meterline alone, typed, the same from the sdist")
        environment = new_environment(folder / "gateway")
        environment.install(f"{direct}[relay]")
        checks: list[Callable[[Environment], None]] = [
            check_absent,
            check_command,
            check_program,
            check_types,
        ]
        for check in checks:
            check(environment)
            print(f"{check.__name__.removeprefix('check_')}: {check.__doc__}")
    print(f"relay extra: {len(checks) + 1} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
