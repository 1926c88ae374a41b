"""The schemes by the name that provider files call them."""

from __future__ import annotations

from collections.abc import Callable

from ingest.fileform import Check
from ingest.schemes.base import Scheme
from ingest.schemes.graph_rich import GraphRich
from ingest.schemes.identity_token import IdentityToken
from ingest.schemes.mac import Mac
from ingest.schemes.public_key import PublicKeySignature
from ingest.schemes.shared_secret import SharedSecret

SCHEMES: dict[str, Callable[[Check], Scheme]] = {
    "mac": Mac,
    "public_key": PublicKeySignature,
    "identity_token": IdentityToken,
    "shared_secret": SharedSecret,
    "graph_rich": GraphRich,
}
