"""Engines: what runs a network's forward passes, chosen by the time that they take (documentation: "Engines")."""
