"""The errors whose messages are written for people; imported when something has failed."""

from __future__ import annotations

from meterline.app.failures import UserError
from meterline.backends.clickhouse import ClickHouseError
from meterline.backends.kafka.errors import KafkaClientError
from meterline.control.policy.file import PolicyFileError
from meterline.embedded.errors import EmbeddedError
from meterline.operations.replay.options import ReplayError
from meterline.operations.replay.truth import TruthError
from meterline.pricing.rate_card import CatalogueError
from meterline.reports.close.close import CloseError
from meterline.reports.close.core.months import PeriodError
from meterline.reports.close.files import FilesError
from meterline.reports.erp.core.journal import JournalError
from meterline.reports.errors import SchedulerError
from meterline.reports.providers.core.layouts import ExportError
from meterline.reports.repricing.catalogue_archive import UnknownVersionError
from meterline.reports.repricing.core.scenario import ScenarioError
from meterline.reports.repricing.rerate import RerateError
from meterline.schemas.scopes import ScopeError
from meterline.sinks.migrate import MigrationError
from meterline.sinks.writer import SinkError

NOTIFIABLE = (
    CatalogueError,
    ClickHouseError,
    CloseError,
    EmbeddedError,
    ExportError,
    FilesError,
    JournalError,
    KafkaClientError,
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
