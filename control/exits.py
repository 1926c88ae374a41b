"""What the command line's exit code says, by the family of an error: one table."""

from __future__ import annotations

from schemas import errors
from schemas.errors import NightbellError

DONE, NO, BAD_INPUT, NOT_FOUND, NOT_ALLOWED, UNREACHABLE = range(6)

EXIT_CODES: dict[type[NightbellError], int] = {
    errors.Refused: BAD_INPUT,
    errors.BadSignature: NO,
    errors.Unauthenticated: NOT_ALLOWED,
    errors.NotAllowed: NOT_ALLOWED,
    errors.NotFound: NOT_FOUND,
    errors.Conflict: NO,
    errors.TooSlow: UNREACHABLE,
    errors.Throttled: UNREACHABLE,
    errors.Busy: UNREACHABLE,
    errors.AgentFailed: UNREACHABLE,
    errors.Misconfigured: BAD_INPUT,
    errors.AddressRefused: NOT_ALLOWED,
    errors.FencedOut: UNREACHABLE,
    errors.CursorLost: UNREACHABLE,
    errors.DamagedRecord: UNREACHABLE,
}


def exit_code(error: type[NightbellError]) -> int:
    """The exit code of an error's class: its own line of the table, else that of the nearest class above it."""
    return next((EXIT_CODES[kind] for kind in error.__mro__ if kind in EXIT_CODES), NO)
