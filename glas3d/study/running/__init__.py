"""The participant level: explain every scan of a cohort, and resume a run that was stopped."""
