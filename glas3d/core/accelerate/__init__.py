"""Faster ways to the same scores; the method can be read without them.

`recompute` computes only what a mask changes: `glas3d.core.glas` reaches it through its one function,
`evaluate_changed_windows`. `refine` spends a share of the evaluations, as a user of `GLAS`: it estimates the
scores of some points by `kriging`, or masks regions together, in `region_groups`. `windows` has the boxes in which
volumes differ.
"""
