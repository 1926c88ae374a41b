"""The steps of a check, named for the operator: the public answer never says which one failed."""

from __future__ import annotations

from enum import StrEnum

from schemas.errors import BadSignature, SecretsUnavailable


class Step(StrEnum):
    """Where a request failed."""

    METHOD = "method"  # the provider never delivers so
    NO_CHECK = "no_check"  # none of the provider's checks fits the request: its signature header is missing
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_REPEATED = "signature_repeated"  # two signature headers: one of them may be somebody else's
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"  # wrong secret, or the body was changed or re-encoded on its way
    SIGNED_PART_MISSING = "signed_part_missing"  # a header or field that the signature covers is not there
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    TIMESTAMP_STALE = "timestamp_stale"
    TIMESTAMP_FUTURE = "timestamp_future"
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_MISMATCH = "credential_mismatch"
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - the name of a step
    TOKEN_ALGORITHM = "token_algorithm"  # noqa: S105 - the name of a step
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the name of a step
    TOKEN_CLAIM = "token_claim"  # noqa: S105 - the name of a step
    KEY_UNKNOWN = "key_unknown"  # the key that the request names is not one of the vendor's
    KEY_ADDRESS = "key_address"  # the request names a key at an address that is not the vendor's
    REQUIREMENT = "requirement"  # an account, topic or version that this source is pinned to
    ITEMS_MISSING = "items_missing"  # each item is signed, and there is none


class Unproven(BadSignature):
    """The request could not be verified."""

    def __init__(self, step: Step, reason: str) -> None:
        """Keep the step and the reason for the operator; the public text stays the same."""
        super().__init__(None, step=step.value, reason=reason)
        self.step = step
        self.reason = reason


class KeyNeeded(SecretsUnavailable):
    """The vendor's public key must be fetched first."""

    def __init__(self, url: str, *, name: str = "", posted: bytes = b"") -> None:
        """The address, checked against the provider's hosts already; `name` is what its answer is kept under.

        `posted` is JSON to post there instead of a GET: it may hold a secret of the source.
        """
        super().__init__()
        self.url = url
        self.name = name or url
        self.posted = posted
