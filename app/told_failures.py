"""The errors whose messages are written for people; imported when something has failed."""

from __future__ import annotations

from app.failures import UserError
from app.replay.options import ReplayError
from app.replay.truth import TruthError
from backends.clickhouse import ClickHouseError
from backends.kafka import KafkaDoorError
from embedded.errors import EmbeddedError
from pricing.rate_card import CatalogueError
from reports.close.close import CloseError
from reports.close.files import FilesError
from reports.close.months import PeriodError
from reports.erp.journal import JournalError
from reports.errors import SchedulerError
from reports.providers.layouts import ExportError
from reports.repricing.kept import UnknownVersionError
from reports.repricing.rerate import RerateError
from reports.repricing.scenario import ScenarioError
from schemas.policy_file import PolicyFileError
from schemas.scopes import ScopeError
from sinks.migrate import MigrationError
from sinks.writer import SinkError

TOLD = (
    CatalogueError,
    ClickHouseError,
    CloseError,
    EmbeddedError,
    ExportError,
    FilesError,
    JournalError,
    KafkaDoorError,
    MigrationError,
    PeriodError,
    PolicyFileError,
    ReplayError,
    RerateError,
    ScenarioError,
    SchedulerError,
    ScopeError,
    SinkError,
    TruthError,
    UnknownVersionError,
    UserError,
)
