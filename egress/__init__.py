"""The guarded HTTP client."""

from egress.client import Answer, Client
from egress.guard import check_address, check_url

__all__ = ["Answer", "Client", "check_address", "check_url"]
