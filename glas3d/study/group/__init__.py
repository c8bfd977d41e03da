"""The group level: maps, comparisons and summaries of everyone's results."""
