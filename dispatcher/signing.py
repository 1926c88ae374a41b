"""Standard Webhooks signatures for what we send."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence

from schemas.errors import BadSetting

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that `secret` spells: base64, with or without `whsec_` before it and padding behind.

    Strict, where the reference libraries differ: Python's passes over characters that are no base64, others refuse them, so
    such a secret would sign for some receivers only.  Raises BadSetting.
    """
    text = secret.strip().removeprefix(PREFIX).rstrip("=")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadSetting("an agent's secret is whsec_ and base64") from exc
    if not key:
        raise BadSetting("an agent's secret is blank")
    return key


class Signer:
    """Signs with every live secret of an agent, newest first, so that either end may rotate when it likes."""

    __slots__ = ("_keyed",)

    def __init__(self, secrets: Sequence[str]) -> None:
        """Decode the secrets once.  Raises BadSetting where there is none, or one cannot be read."""
        if not secrets:
            raise BadSetting("the agent has no secret to sign with")
        # Keyed once and copied for each message: that is half the cost of a short one.
        self._keyed = tuple(hmac.new(key_of(secret), digestmod="sha256") for secret in secrets)

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """The value of `webhook-signature` (https://www.standardwebhooks.com): `v1,…` per secret, a space between."""
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
        return " ".join(["v1," + b64encode(_mac(keyed, signed)).decode() for keyed in self._keyed])


def _mac(keyed: hmac.HMAC, message: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(message)
    return mac.digest()
