"""Every error of kafka-python as an error of this client.

An error that the driver calls retriable is BrokerUnavailableError unless it is named below; one
that neither the driver nor this table knows is KafkaFatalError, because going on blindly could lose
data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from kafka import errors as driver

from meterline.backends.kafka.errors import (
    BrokerUnavailableError,
    KafkaClientError,
    KafkaFatalError,
    MessageRefusedError,
    RebalancedError,
)

# A line in a log or on a terminal; the driver sometimes quotes whole requests.
ERROR_TEXT_LENGTH_MAX = 300

_REFUSED = (
    "CorruptRecordError InvalidRecordError InvalidTimestampError MessageSizeTooLargeError "
    "RecordListTooLargeError UnsupportedForMessageFormatError"
)
_REBALANCED = (
    "CommitFailedError FencedMemberEpochError IllegalGenerationError MemberIdRequiredError "
    "RebalanceInProgressError StaleMemberEpochError UnknownMemberIdError"
)
# Not retriable by the driver's word, but they pass: elections, restarts, a broker shutting down.
_UNAVAILABLE = (
    "BrokerIdNotRegisteredError BrokerNotAvailableError NewLeaderElectedError "
    "OperationNotAttemptedError QuotaViolationError ReassignmentInProgressError "
    "StaleBrokerEpochError StaleControllerEpochError UnknownBrokerIdError UnknownError "
    "UnknownControllerIdError"
)
_STOP_ACCESS = (
    "AuthorizationError ClusterAuthorizationFailedError DelegationTokenAuthDisabledError "
    "DelegationTokenAuthorizationFailedError DelegationTokenExpiredError "
    "DelegationTokenNotFoundError DelegationTokenOwnerMismatchError "
    "DelegationTokenRequestNotAllowedError GroupAuthorizationFailedError IllegalSaslStateError "
    "InvalidPrincipalTypeError PrincipalDeserializationFailureError SaslAuthenticationFailedError "
    "SecurityDisabledError TopicAuthorizationFailedError TransactionalIdAuthorizationFailedError "
    "UnacceptableCredentialError UnsupportedSaslMechanismError"
)
_STOP_TOPIC = (
    "InvalidConfigurationError InvalidPartitionsError InvalidReplicationAssignmentError "
    "InvalidReplicationFactorError InvalidTopicError PolicyViolationError ResourceNotFoundError "
    "TopicDeletionDisabledError UnknownTopicIdError UnknownTopicOrPartitionError"
)
_STOP_FENCED = (
    "DuplicateSequenceNumberError FencedInstanceIdError InvalidProducerEpochError "
    "InvalidProducerIdMappingError OutOfOrderSequenceNumberError ProducerFencedError "
    "TransactionCoordinatorFencedError UnknownProducerIdError UnreleasedInstanceIdError"
)
_STOP_DATA = (
    "LogTruncationError NoOffsetForPartitionError OffsetOutOfRangeError RecordTooLargeError"
)
_STOP_OTHER = (
    "BrokerResponseError DuplicateBrokerRegistrationError DuplicateResourceError "
    "DuplicateVoterError FeatureUpdateFailedError FencedStateEpochError GroupIdNotFoundError "
    "GroupMaxSizeReachedError GroupSubscribedToTopicError IllegalArgumentError IllegalStateError "
    "IncompatibleBrokerVersion InconsistentClusterIdError InconsistentGroupProtocolError "
    "InconsistentVoterSetError IneligibleReplicaError InvalidCommitOffsetSizeError "
    "InvalidFetchRequestError InvalidGroupIdError InvalidReceiveError InvalidRecordStateError "
    "InvalidRegistrationError InvalidRequestError InvalidRequiredAcksError "
    "InvalidSessionTimeoutError InvalidTransactionTimeoutError InvalidTxnStateError "
    "InvalidUpdateVersionError InvalidVoterKeyError KafkaConfigurationError KafkaError "
    "KafkaProtocolError LogDirNotFoundError MismatchedEndpointTypeError NoError "
    "NoReassignmentInProgressError NonEmptyGroupError OffsetMetadataTooLargeError "
    "OffsetMovedToTieredStorageError PositionOutOfRangeError SnapshotNotFoundError "
    "TelemetryTooLargeError TopicAlreadyExistsError TransactionAbortableError "
    "TransactionAbortedError TransactionalIdNotFoundError UnknownSubscriptionIdError "
    "UnrecognizedBrokerVersion UnsupportedAssignorError UnsupportedCodecError "
    "UnsupportedCompressionTypeError UnsupportedEndpointTypeError UnsupportedVersionError "
    "VoterNotFoundError"
)

_ACCESS_HELP = "check the client's security settings and its ACLs on the broker"
_TOPIC_HELP = "run `meterline topics apply`, and check the cluster's topic settings"
_FENCED_HELP = "another process took this one's place; restart this worker"
_DATA_HELP = (
    "the log no longer holds the position of this reader; restart it to read from the start"
)
_OTHER_HELP = "check the broker's version and its log"

_Rule = tuple[type[KafkaClientError], str]


def _rules() -> Mapping[str, _Rule]:
    rows: tuple[tuple[str, type[KafkaClientError], str], ...] = (
        (_REFUSED, MessageRefusedError, ""),
        (_REBALANCED, RebalancedError, ""),
        (_UNAVAILABLE, BrokerUnavailableError, ""),
        (_STOP_ACCESS, KafkaFatalError, _ACCESS_HELP),
        (_STOP_TOPIC, KafkaFatalError, _TOPIC_HELP),
        (_STOP_FENCED, KafkaFatalError, _FENCED_HELP),
        (_STOP_DATA, KafkaFatalError, _DATA_HELP),
        (_STOP_OTHER, KafkaFatalError, _OTHER_HELP),
    )
    return MappingProxyType(
        {name: (kind, advice) for names, kind, advice in rows for name in names.split()}
    )


RULES: Mapping[str, _Rule] = _rules()
"""Name of a driver's error class -> error of this client, and advice."""


def client_error(error: BaseException, doing: str) -> KafkaClientError:
    """Map one driver error; the caller raises it `from` the original.

    Args:
        error: what the driver raised or handed to a callback.
        doing: what was attempted, for the message: "sending to usage.events".
    """
    if isinstance(error, KafkaClientError):
        return error
    kind, advice = _rule_of(error)
    tail = f"; {advice}" if advice else ""
    return kind(f"{doing}: {_text(error)}{tail}")


def _text(error: BaseException) -> str:
    """One line: what was said with the error, else what the driver's manual says of it."""
    said = [str(argument) for argument in error.args if argument not in (None, "")]
    text = ": ".join(said) or getattr(error, "description", None) or ""
    one_line = " ".join(text.split())[:ERROR_TEXT_LENGTH_MAX]
    name = type(error).__name__
    return f"{name}: {one_line}" if one_line else name


def _rule_of(error: BaseException) -> _Rule:
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in RULES and ancestor is not driver.KafkaError:
            kind, advice = RULES[ancestor.__name__]
            # A base class says less than the driver's own word on its child.
            if ancestor is type(error) or not getattr(error, "retriable", False):
                return kind, advice
    if getattr(error, "retriable", False) or isinstance(error, OSError):
        return BrokerUnavailableError, ""
    if isinstance(error, ValueError | TypeError):
        return MessageRefusedError, ""
    return KafkaFatalError, _OTHER_HELP


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Let no error of the driver out of the block.

    RuntimeError is among them because the driver raises it when its event loop has ended.
    """
    try:
        yield
    except KafkaClientError:
        raise
    except (driver.KafkaError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise client_error(error, doing) from error
