"""Times as vendors write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,12})?")
# Date, time, fraction of any length, zone: ISO 8601 as it is met ("2019-05-06 17:15:34 UTC", "+0000", nanoseconds).
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d+))?)?\s*(Z|z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
)
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999
_PER_MS = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}
_DISCORD_EPOCH_MS = 1_420_070_400_000


def instant_ms(text: str, unit: str = "auto") -> int | None:
    """The instant in ms since 1970, or None where `text` names none between 1970 and the year 9999."""
    try:
        found = _read(text.strip(), unit)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return found if found is not None and 0 < found <= _LATEST_MS else None


def _read(text: str, unit: str) -> int | None:
    if unit == "snowflake":
        return (int(text) >> 22) + _DISCORD_EPOCH_MS
    if unit == "rfc2822":
        return _since_epoch(parsedate_to_datetime(text))
    if unit != "iso" and _NUMBER.fullmatch(text):
        number = float(text) if "." in text else int(text)
        return round(number / _PER_MS[_by_size(number) if unit == "auto" else unit])
    found = _ISO.fullmatch(text)
    if found:
        return _of_iso(found)
    return _since_epoch(parsedate_to_datetime(text)) if unit == "auto" else None


def _by_size(number: float) -> str:
    """The unit that puts `number` into this century: seconds stay below 10^11, and so on by thousands."""
    for unit, bound in (("s", 1e11), ("ms", 1e14), ("us", 1e17)):
        if abs(number) < bound:
            return unit
    return "ns"


def _of_iso(found: re.Match[str]) -> int:
    day, minute, second, fraction, zone = found.groups()
    fraction = ((fraction or "") + "000")[:3]
    offset = "+00:00" if zone in {None, "Z", "z", "UTC", "GMT"} else zone
    if len(offset) == 3:  # noqa: PLR2004 - "+02"
        offset += ":00"
    if ":" not in offset:
        offset = f"{offset[:3]}:{offset[3:]}"
    return _since_epoch(datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}.{fraction}{offset}"))


def _since_epoch(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)
