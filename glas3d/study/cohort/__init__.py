"""Read who takes part in a study, and which scans, from a BIDS folder."""
