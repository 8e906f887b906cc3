"""Apache Kafka's jars: resolved by Maven once, then kept in the user's cache directory."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from meterline.embedded.errors import EmbeddedError, ServerMissingError

POM = Path(__file__).with_name("pom.xml")
LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
# Apache Kafka 4 brokers need it.
JAVA_VERSION_MIN = 17
# 44 MB over a slow line; after that Maven hangs rather than loads.
MAVEN_TIMEOUT_SECONDS = 600.0
JAVA_TIMEOUT_SECONDS = 30.0
_VERSION_IN_POM = re.compile(r"<kafka\.version>([^<]+)</kafka\.version>")
_JAVA_VERSION = re.compile(r'version "(\d+)')
_ERROR_LINE_CHARACTERS = 300


class JarsUnavailableError(EmbeddedError):
    """Maven could not resolve the jars."""


def java_program() -> str:
    """The path of a Java that can run the broker; ServerMissingError."""
    java = shutil.which("java")
    if java is None:
        message = (
            f"Apache Kafka needs Java {JAVA_VERSION_MIN} or later and none is on PATH: install "
            "one (e.g. openjdk-17-jre-headless), or run with --kafka embedded"
        )
        raise ServerMissingError(message)
    answer = subprocess.run(  # noqa: S603 - the program found on PATH
        (java, "-version"),
        capture_output=True,
        text=True,
        timeout=JAVA_TIMEOUT_SECONDS,
        check=False,
    )
    found = _JAVA_VERSION.search(answer.stderr + answer.stdout)
    if found is None or int(found[1]) < JAVA_VERSION_MIN:
        version = found[1] if found else "of unknown version"
        message = (
            f"Apache Kafka needs Java {JAVA_VERSION_MIN} or later and {java} is {version}: put a "
            "newer one first on PATH, or run with --kafka embedded"
        )
        raise ServerMissingError(message)
    return java


def cache_directory() -> Path:
    """Where resolved jars are kept; named after the version and the pom's content."""
    pom = POM.read_text()
    found = _VERSION_IN_POM.search(pom)
    assert found is not None, POM
    digest = hashlib.sha256(pom.encode()).hexdigest()[:8]
    # The convention of the desktop world for "may be deleted at any time"; not a setting of Meterline.
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # noqa: TID251
    return Path(base) / "meterline" / f"apache-kafka-{found[1]}-{digest}"


def resolved_jars() -> Path:
    """The directory of the jars, fetched first if need be.

    Raises ServerMissingError (no Maven) or JarsUnavailableError (Maven failed).
    """
    directory = cache_directory()
    if directory.is_dir():
        return directory
    maven = shutil.which("mvn")
    if maven is None:
        message = (
            "Apache Kafka's jars are fetched with Maven and no mvn is on PATH: install it "
            "(e.g. apt-get install maven), or run with --kafka embedded"
        )
        raise ServerMissingError(message)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="resolve-", dir=directory.parent) as work_name:
        work = Path(work_name)
        shutil.copy(POM, work / "pom.xml")
        _copy_dependencies(maven, work)
        try:
            # Only a complete directory ever has the final name.
            (work / "jars").rename(directory)
        except OSError:
            # Another process resolved the same jars meanwhile: its directory is as good.
            if not directory.is_dir():
                raise
    return directory


def _copy_dependencies(maven: str, work: Path) -> None:
    command = (maven, "--batch-mode", "--quiet", "--file", str(work / "pom.xml"))
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime")
    try:
        done = subprocess.run(  # noqa: S603 - the program found on PATH
            (*command, *goal, f"-DoutputDirectory={work / 'jars'}"),
            capture_output=True,
            text=True,
            timeout=MAVEN_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = (
            f"Maven did not fetch Apache Kafka within {MAVEN_TIMEOUT_SECONDS:g} s: check the "
            "network and try again, or run with --kafka embedded"
        )
        raise JarsUnavailableError(message) from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        cause = lines[0][:_ERROR_LINE_CHARACTERS] if lines else "no message"
        message = (
            f"Maven could not fetch Apache Kafka ({cause}): check the network and Maven's "
            "settings, or run with --kafka embedded"
        )
        raise JarsUnavailableError(message)
