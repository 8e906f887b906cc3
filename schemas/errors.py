"""The root of every error that Meterline raises, and the line that each becomes for an operator.

A message is one line that says what is wrong and what to do; each class says in its docstring what
its caller can do. `python -m tests.error_tree` draws this, and a test compares.

MeterlineError
├── AlertError                       schemas.alert
├── UserError
│   └── RebuildError                 operations.rebuild
├── MatcherError                     schemas.matchers
├── MoneyError                       schemas.money
├── PolicyRecordError                schemas.policy
├── ScopeError                       schemas.scopes
├── SnapshotError                    schemas.spend
├── TemplateError                    schemas.templates
├── ThrottleError                    schemas.throttle
├── ImportUnavailableError           pricing.importer
├── CatalogueError                   pricing.rate_card
├── RateNotFoundError                pricing.show
├── ClickHouseError                  backends.clickhouse.errors
│   ├── ClickHouseFatalError
│   ├── ClickHouseRefusedError
│   └── ClickHouseUnavailableError
├── UnknownFailpointError            backends.failpoints
├── KafkaClientError                 backends.kafka.errors
│   ├── BrokerUnavailableError
│   ├── KafkaFatalError
│   ├── MessageRefusedError
│   └── RebalancedError
├── SmtpError                        backends.mail.messages
│   ├── SmtpForbiddenError
│   └── SmtpUnreachableError
├── WebhookError                     backends.webhook.messages
│   ├── WebhookForbiddenError
│   └── WebhookUnreachableError
├── PolicyFileError                  control.policy.file
├── EpochError                       streams.core.changelog
├── RecoveryStalledError             streams.recovery
├── StoppedError                     sinks.consumer
├── TooManyRefusedError              sinks.core.batch
├── RecordError                      sinks.core.control_rows
├── PositionError                    sinks.core.versions
├── MigrationError                   sinks.migrate
├── SinkError                        sinks.writer
├── NotReadyError                    alerting.notify.channels.base
├── ReportPeriodError                reports.attribution.core.period
├── QuestionError                    reports.attribution.core.question
├── NoRateError                      reports.booking.core.currency
├── MonthError                       reports.booking.core.months
├── CloseError                       reports.close.close
│   ├── CloseBusyError
│   └── ReopenError
├── FilesError                       reports.close.files
├── JournalError                     reports.erp.core.journal
├── ExportError                      reports.providers.core.layouts
├── UnknownVersionError              reports.repricing.catalogue_archive
├── ScenarioError                    reports.repricing.core.scenario
├── RerateError                      reports.repricing.rerate
├── SchedulerError                   reports.scheduler
├── ProviderUsageError               relay.provider_usage
├── RelaySettingsError               relay.settings
├── SpoolError                       relay.spool
│   ├── SpoolFullError
│   ├── SpoolInUseError
│   ├── SpoolUnusableError
│   └── SpoolWriteError
├── ReplayError                      operations.replay.options
├── TruthError                       operations.replay.truth
└── SettingsError                    app.settings

The embedded servers import nothing of Meterline: their root is `embedded.errors.EmbeddedError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class MeterlineError(Exception):
    """An expected failure: its message is one line that says what is wrong and what to do."""


class UserError(MeterlineError):
    """A command cannot go on; the message says why and what to do."""


_HINTS = {
    errno.ENOSPC: "the disk is full: free space or choose another --data directory",
    errno.EADDRINUSE: "the port is taken: stop what listens there or choose another",
    errno.EACCES: "permission denied: choose a directory you may write to",
    errno.EROFS: "the file system is read-only: choose another --data directory",
}


def describe(error: BaseException) -> str | None:
    """The text for an operator, one fault a line; None for a defect, which keeps its traceback."""
    match error:
        case MeterlineError():
            return str(error)
        case OSError(errno=number) if number in _HINTS:
            where = f"{error.filename}: " if error.filename else ""
            return where + _HINTS[number]
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """Add an expected failure to the list instead of raising it: the caller reports them all.

    Args:
        faults: the list; one entry a line of the failure's text.
    """
    try:
        yield
    except Exception as error:
        text = describe(error)
        if text is None:
            raise
        faults += text.splitlines()
