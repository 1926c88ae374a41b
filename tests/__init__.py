"""Tests mirror the packages; contracts, flow, chaos and architecture stand beside them."""
