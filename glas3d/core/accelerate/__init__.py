"""Faster ways to the same scores; the method can be read without them.

`recompute` computes only what a mask changes: `glas3d.core.glas` reaches it through its one function,
`evaluate_changed_windows`. `refine` evaluates the model at a share of the points and estimates the scores of the others
by `kriging`; it is a user of `GLAS`. `windows` has the boxes in which volumes differ.
"""
