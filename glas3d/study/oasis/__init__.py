"""OASIS-1, maps of grey matter of real participants, as a BIDS data set."""
