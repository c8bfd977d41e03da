"""Engines: what runs a network's forwards, chosen by the time that they take (docs/engines.md)."""
