"""The error tree: four families, by who must act.

    NightbellError
    ├── Refused            the sender (of a webhook, or of an API call)
    │   ├── MalformedRequest      400
    │   ├── BadSignature          401  unproven: bad, missing or stale
    │   ├── Unauthenticated       401  no valid API key
    │   ├── NotAllowed            403
    │   ├── NotFound              404
    │   ├── WrongMethod           405
    │   ├── TooSlow               408
    │   ├── Conflict              409
    │   ├── TooLarge              413
    │   ├── UnsupportedMedia      415
    │   ├── Invalid               422  understood, and wrong: a bad pattern, an unknown field
    │   └── Throttled             429
    ├── Busy               we, soon
    │   ├── LogUnavailable        503
    │   ├── StoreUnavailable      503
    │   ├── SecretsUnavailable    503  a blank secret, a locked vault, a check that itself failed
    │   ├── NotReady              503
    │   └── Saturated             503
    ├── AgentFailed        the agent
    │   ├── AgentUnreachable
    │   └── AgentTimedOut
    └── Misconfigured      the operator
        ├── BadSetting
        ├── AddressRefused        the egress guard's word
        ├── FencedOut             another process owns this now
        ├── CursorLost            a cursor outside the log
        └── DamagedRecord         stored bytes fail their checksum

Anything else is a bug: it ends the worker, and the supervisor logs and restarts.  HTTP status, exit code and metric label are
tables keyed by class, in `control.problems`, `control.cli` and each stage's `metrics`.
"""

from __future__ import annotations

from typing import ClassVar


class NightbellError(Exception):
    """Something that Nightbell foresaw went wrong."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, **fields: str | float | bool | None) -> None:
        """Keep `detail` (default: the class's docstring) and primitive `fields`; never a secret, never a body."""
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.fields = fields
        super().__init__(self.detail)


class Refused(NightbellError):
    """The request cannot be taken as it is."""

    code, status = "refused", 400


class MalformedRequest(Refused):
    """The request cannot be read."""

    code, status = "malformed", 400


class BadSignature(Refused):
    """The request could not be verified."""

    code, status = "refused", 401


class Unauthenticated(Refused):
    """A valid API key is needed: `Authorization: Bearer nbk_…`."""

    code, status = "unauthenticated", 401


class NotAllowed(Refused):
    """This key's role does not allow that."""

    code, status = "not_allowed", 403


class NotFound(Refused):
    """There is no such thing."""

    code, status = "not_found", 404


class WrongMethod(Refused):
    """This address does not answer that method."""

    code, status = "method_not_allowed", 405


class TooSlow(Refused):
    """The request's body did not arrive in time."""

    code, status, retryable = "request_timeout", 408, True


class Conflict(Refused):
    """That contradicts what is there."""

    code, status = "conflict", 409


class TooLarge(Refused):
    """The body is larger than this address takes."""

    code, status = "too_large", 413


class UnsupportedMedia(Refused):
    """The body's coding is not one that this source uses."""

    code, status = "unsupported_media", 415


class Invalid(Refused):
    """The document is understood, and wrong."""

    code, status = "invalid", 422


class Throttled(Refused):
    """Too many requests for this source."""

    code, status, retryable = "throttled", 429, True


class Busy(NightbellError):
    """Not now: try again soon."""

    code, status, retryable = "busy", 503, True
    retry_after_s: ClassVar[int] = 5


class LogUnavailable(Busy):
    """The event log cannot take records now."""

    code = "log_unavailable"


class StoreUnavailable(Busy):
    """The store cannot be reached now."""

    code = "store_unavailable"


class SecretsUnavailable(Busy):
    """The secrets that this source needs are blank or out of reach."""

    code = "secrets_unavailable"


class NotReady(Busy):
    """This process is not ready yet."""

    code = "not_ready"


class Saturated(Busy):
    """Too much is in flight."""

    code, retry_after_s = "saturated", 1


class AgentFailed(NightbellError):
    """The agent could not be woken."""

    code, status, retryable = "agent_failed", 502, True


class AgentUnreachable(AgentFailed):
    """No connection to the agent."""

    code = "agent_unreachable"


class AgentTimedOut(AgentFailed):
    """The agent did not answer within its time."""

    code, status = "agent_timed_out", 504


class Misconfigured(NightbellError):
    """The operator must mend a setting."""

    code, status = "misconfigured", 500


class BadSetting(Misconfigured):
    """A setting is wrong."""

    code = "bad_setting"


class AddressRefused(Misconfigured):
    """The address is one that Nightbell does not call: private, reserved, or of a port or scheme that is not allowed."""

    code = "address_refused"


class FencedOut(Misconfigured):
    """Another process owns this now."""

    code = "fenced_out"


class CursorLost(Misconfigured):
    """A cursor points outside the log: records were lost to retention, or the log was replaced."""

    code = "cursor_lost"


class DamagedRecord(Misconfigured):
    """A stored record fails its checksum."""

    code = "damaged_record"
