"""The nouns: pydantic and the standard library only; no I/O, no clock, no settings."""
