"""Ways of waking an agent, by the name that `nightbell.yaml` uses; a new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.protocols.base import AgentProtocol
from dispatcher.protocols.pull import Pull
from dispatcher.protocols.webhook import Webhook
from schemas.config import PULL

PROTOCOLS: Mapping[str, AgentProtocol] = {"webhook": Webhook(), PULL: Pull()}
