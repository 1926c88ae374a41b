"""What aiokafka's errors are in our words: the one place where they are translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import errors

from schemas.errors import (
    BadSetting,
    CursorLost,
    DamagedRecord,
    FencedOut,
    LogUnavailable,
    NightbellError,
    NotAllowed,
    TooLarge,
)

_FAMILIES: dict[type[NightbellError], tuple[type[Exception], ...]] = {
    TooLarge: (errors.MessageSizeTooLargeError, errors.RecordTooLargeError, errors.RecordListTooLargeError),
    CursorLost: (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError),
    DamagedRecord: (errors.CorruptRecordException, errors.InvalidMessageError),
    FencedOut: (
        errors.CommitFailedError,
        errors.ConcurrentTransactions,
        errors.IllegalGenerationError,
        errors.InvalidProducerEpoch,
        errors.ProducerFenced,
        errors.RebalanceInProgressError,
        errors.TransactionCoordinatorFenced,
        errors.UnknownMemberIdError,
    ),
    NotAllowed: (
        errors.AuthenticationFailedError,
        errors.ClusterAuthorizationFailedError,
        errors.DelegationTokenAuthorizationFailed,
        errors.GroupAuthorizationFailedError,
        errors.SaslAuthenticationFailed,
        errors.TopicAuthorizationFailedError,
        errors.TransactionalIdAuthorizationFailed,
    ),
    BadSetting: (
        errors.AuthenticationMethodNotSupported,
        errors.DelegationTokenAuthDisabled,
        errors.DelegationTokenExpired,
        errors.DelegationTokenNotFound,
        errors.DelegationTokenOwnerMismatch,
        errors.DelegationTokenRequestNotAllowed,
        errors.GroupIdNotFound,
        errors.IllegalArgumentError,
        errors.IllegalSaslStateError,
        errors.IncompatibleBrokerVersion,
        errors.InconsistentGroupProtocolError,
        errors.InvalidCommitOffsetSizeError,
        errors.InvalidConfigurationError,
        errors.InvalidGroupIdError,
        errors.InvalidPartitionsError,
        errors.InvalidPrincipalType,
        errors.InvalidReplicationAssignmentError,
        errors.InvalidReplicationFactorError,
        errors.InvalidRequestError,
        errors.InvalidRequiredAcksError,
        errors.InvalidSessionTimeoutError,
        errors.InvalidTimestampError,
        errors.InvalidTopicError,
        errors.InvalidTransactionTimeout,
        errors.KafkaConfigurationError,
        errors.ListenerNotFound,
        errors.NonEmptyGroup,
        errors.OffsetMetadataTooLargeError,
        errors.PolicyViolationError,
        errors.SecurityDisabled,
        errors.UnrecognizedBrokerVersion,
        errors.UnsupportedCodecError,
        errors.UnsupportedForMessageFormatError,
        errors.UnsupportedSaslMechanismError,
        errors.UnsupportedVersionError,
    ),
    LogUnavailable: (
        errors.Cancelled,
        errors.ConsumerStoppedError,
        errors.CorrelationIdError,
        errors.DuplicateSequenceNumber,
        errors.FetchSessionIdNotFound,
        errors.IllegalOperation,
        errors.IllegalStateError,
        errors.InvalidFetchRequestError,
        errors.InvalidFetchSessionEpoch,
        errors.InvalidProducerIdMapping,
        errors.InvalidTxnState,
        errors.KafkaProtocolError,
        errors.KafkaStorageError,
        errors.KafkaTimeoutError,
        errors.KafkaUnavailableError,
        errors.LogDirNotFound,
        errors.MemberIdRequired,
        errors.NoError,
        errors.OperationNotAttempted,
        errors.OutOfOrderSequenceNumber,
        errors.ProducerClosed,
        errors.QuotaViolationError,
        errors.ReassignmentInProgress,
        errors.StaleControllerEpochError,
        errors.StaleLeaderEpochCodeError,
        errors.TopicAlreadyExistsError,
        errors.UnknownError,
        errors.UnknownProducerId,
        errors.BrokerNotAvailableError,
        errors.ReplicaNotAvailableError,
    ),
}


def family_of(kind: type[Exception]) -> type[NightbellError] | None:
    """Our error for one of aiokafka's classes, or None where nobody has thought about it."""
    for ours, theirs in _FAMILIES.items():
        if issubclass(kind, theirs):
            return ours
    return LogUnavailable if getattr(kind, "retriable", False) else None


def translated(exc: Exception) -> NightbellError:
    """Our error for one of aiokafka's, or of the network's."""
    ours = family_of(type(exc)) or LogUnavailable
    if ours is NotAllowed:
        # A refusal by the broker is for our operator to mend, not for whoever sent the webhook.
        return BadSetting(f"Kafka refuses us: {type(exc).__name__}", reason=type(exc).__name__)
    return ours(f"Kafka: {type(exc).__name__}", reason=type(exc).__name__)


@asynccontextmanager
async def bounded(timeout_s: float) -> AsyncIterator[None]:
    """Within it, waiting ends after `timeout_s` and foreign errors are ours."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except NightbellError:
        raise
    except TimeoutError as exc:
        raise LogUnavailable("Kafka did not answer in time", reason="timeout") from exc
    except (errors.KafkaError, OSError) as exc:
        raise translated(exc) from exc
