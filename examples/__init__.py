"""Nightbell at work: the demo, its senders and its sample agent."""
