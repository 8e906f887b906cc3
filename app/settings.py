"""Settings: read from the environment, validated all at once.

Every variable begins with `METERLINE_`; sections are joined by two underscores:
`METERLINE_KAFKA__BOOTSTRAP=broker:9092`. A command that talks to a pipeline started by
`meterline up` needs none of them: it finds the runtime file in the data directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import to_jsonable_python
from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import override

from meterline.schemas.errors import MeterlineError

VARIABLE_PREFIX = "METERLINE_"
SECTION_DELIMITER = "__"
RUNTIME_FILE = "runtime.json"
CLOSES_DIRECTORY = "closes"
STATE_FILE = "workers.json"
DEFAULT_DATA_DIR = Path(".meterline")
DEPRECATED_EMBEDDED = "tansu"
"""The embedded broker by its vendor's name: the deprecated spelling in settings and scripts."""


class BrokerKind(StrEnum):
    """Kind of the broker: the embedded one lacks some features of the protocol."""

    KAFKA = "kafka"
    EMBEDDED = "embedded"

    @override
    @classmethod
    def _missing_(cls, value: object) -> BrokerKind | None:
        """Accept the spelling of older settings and of older data directories' runtime files."""
        return cls.EMBEDDED if value == DEPRECATED_EMBEDDED else None


def broker_name(spelling: str) -> str:
    """The name of a broker in `--kafka`, from its name or its deprecated spelling."""
    return BrokerKind.EMBEDDED.value if spelling == DEPRECATED_EMBEDDED else spelling


class KafkaSection(BaseModel):
    """Where the topics are."""

    model_config = ConfigDict(extra="forbid")

    bootstrap: str = "127.0.0.1:9092"
    kind: BrokerKind = BrokerKind.KAFKA
    replication_factor: int = Field(default=1, ge=1, le=9)
    usage_partitions: int = Field(default=4, ge=1, le=512)
    session_timeout_ms: int = Field(default=10_000, ge=1_000, le=300_000)
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: str = ""

    @field_validator("bootstrap")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            host, colon, port = server.strip().rpartition(":")
            if not host or not colon or not port.isdigit():
                message = f"{server.strip()!r} is not HOST:PORT"
                raise ValueError(message)
        return value


class ClickHouseSection(BaseModel):
    """Where the tables are."""

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8123, ge=1, le=65_535)
    database: str = Field(default="default", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    user: str = "default"
    password: SecretStr = SecretStr("")
    secure: bool = False
    cluster: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,62}$")
    """Name of the cluster for ON CLUSTER and Replicated tables; empty on a single server."""


class ReportsSection(BaseModel):
    """Directory of the closed months, and the pull endpoint that serves them."""

    model_config = ConfigDict(extra="forbid")

    directory: Path | None = None
    """Default: `closes` in the data directory."""
    exports_host: str = "127.0.0.1"
    exports_port: int = Field(default=0, ge=0, le=65_535)
    """Port of the pull endpoint; 0 for none."""
    exports_token_env: str = Field(
        default="METERLINE_SECRET_EXPORTS", pattern=r"^METERLINE_SECRET_[A-Z0-9_]{1,64}$"
    )
    """Variable with the bearer token; without a token nothing is served."""


class Settings(BaseSettings):
    """All settings; the defaults are those of one machine."""

    model_config = SettingsConfigDict(
        env_prefix=VARIABLE_PREFIX, env_nested_delimiter=SECTION_DELIMITER, extra="forbid"
    )

    kafka: KafkaSection = KafkaSection()
    clickhouse: ClickHouseSection = ClickHouseSection()
    reports: ReportsSection = ReportsSection()
    time_zone: str = "UTC"
    """Billing time zone of all calendar windows; must equal the policy's."""
    catalogues: tuple[Path, ...] = ()
    """Rate card files, later ones override; the shipped catalogue comes before them."""
    data_dir: Path = DEFAULT_DATA_DIR
    log_epoch: int = Field(default=0, ge=0, le=1_023)
    """Generation of the Kafka log: raise it by one when a cluster was lost and starts empty."""
    log_format: str = Field(default="console", pattern="^(console|json)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port of /metrics and /ready on 127.0.0.1 (or metrics_host); 0 for none."""
    metrics_host: str = "127.0.0.1"
    notify_ca_file: str = ""
    """PEM file of certificate authorities that alert receivers' certificates may come from."""
    crash_at: str = ""
    """Test only: name of an effect at which the worker kills itself."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            message = f"{value!r} is not an IANA time zone"
            raise ValueError(message) from error
        return value

    @field_validator("catalogues")
    @classmethod
    def _files_exist(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        missing = [str(path) for path in value if not path.is_file()]
        if missing:
            message = f"no such catalogue file: {', '.join(missing)}"
            raise ValueError(message)
        return value


class SettingsError(MeterlineError, ValueError):
    """Every fault found, one a line."""

    def __init__(self, faults: list[str]) -> None:
        """Keep the faults for check-config."""
        self.faults = faults
        super().__init__("\n".join(faults))


class Runtime(BaseModel):
    """What `meterline up` leaves in its data directory for the other commands."""

    model_config = ConfigDict(extra="ignore")

    pid: int
    bootstrap: str
    kind: BrokerKind
    usage_partitions: int
    clickhouse_host: str
    clickhouse_port: int
    time_zone: str
    log_epoch: int
    metrics_ports: dict[str, int] = Field(default_factory=dict)

    def write(self, data_dir: Path) -> None:
        """Write atomically, so that a reader never sees half a file."""
        target = data_dir / RUNTIME_FILE
        part = target.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(target)

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """The runtime of a pipeline that was started in this directory, if any."""
        try:
            return cls.model_validate_json((data_dir / RUNTIME_FILE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None


def load_settings(data_dir: Path | None = None) -> Settings:
    """Read the environment; fill in what a running `meterline up` has written down.

    Raises:
        SettingsError: with every fault at once.
    """
    directory = data_dir or Path(os.environ.get("METERLINE_DATA_DIR", str(DEFAULT_DATA_DIR)))
    _refuse_unknown()
    runtime = Runtime.read(directory)
    try:
        if runtime is None or "METERLINE_KAFKA__BOOTSTRAP" in os.environ:
            return Settings(data_dir=directory)
        return Settings(
            data_dir=directory,
            time_zone=runtime.time_zone,
            log_epoch=runtime.log_epoch,
            kafka=KafkaSection(
                bootstrap=runtime.bootstrap,
                kind=runtime.kind,
                usage_partitions=runtime.usage_partitions,
            ),
            clickhouse=ClickHouseSection(
                host=runtime.clickhouse_host, port=runtime.clickhouse_port
            ),
        )
    except ValidationError as error:
        raise SettingsError([_fault(item) for item in error.errors()]) from None


def _fault(item: object) -> str:
    details = json.loads(json.dumps(item, default=str))
    name = "METERLINE_" + "__".join(str(part).upper() for part in details["loc"])
    return f"{name}: {details['msg'].removeprefix('Value error, ')}"


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables from which a child process reads equal settings, one for each field.

    Paths are made absolute, because the child may run in another directory. Secrets are included
    in plain text: the mapping is for the child's environment only, never for a log.
    """
    return dict(_variables(settings, VARIABLE_PREFIX))


def _variables(section: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _variables(value, f"{prefix}{name.upper()}{SECTION_DELIMITER}")
        elif value is not None:  # None is always the default, which a variable cannot express
            plain = _plain(value)
            yield f"{prefix}{name.upper()}", plain if isinstance(plain, str) else json.dumps(plain)


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return to_jsonable_python(value)


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The variables that a model and its sections are read from."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{prefix}{name.upper()}{SECTION_DELIMITER}")
        yield f"{prefix}{name.upper()}"


def _refuse_unknown() -> None:
    """A misspelt variable is an error: silence would leave a default in its place."""
    known = set(_names(Settings, VARIABLE_PREFIX))
    free = ("METERLINE_SECRET_", "METERLINE_TEST_")
    strange = sorted(
        name
        for name in os.environ
        if name.startswith(VARIABLE_PREFIX) and name not in known and not name.startswith(free)
    )
    if strange:
        raise SettingsError([f"{name}: no such setting" for name in strange])


# A secret is a line; what is longer is another file.
SECRET_BYTES_MAX = 16_384


def secret(name: str) -> str | None:
    """A secret named in policy, such as a webhook's signing key; None if it is not set.

    Where NAME_FILE is set instead of NAME, the file it names holds the secret: read again each
    time, so that a rotated one needs no restart.
    """
    value = os.environ.get(name)
    path = os.environ.get(f"{name}_FILE")
    if value is not None or not path:
        return value
    try:
        with Path(path).open("rb") as file:
            return file.read(SECRET_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError):
        return None


def base_environment() -> dict[str, str]:
    """The environment that worker processes inherit: no METERLINE_ setting, but the secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(VARIABLE_PREFIX) or name.startswith("METERLINE_SECRET_")
    }
