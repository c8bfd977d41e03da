"""Read the participants of a study and their scans from a BIDS folder."""
