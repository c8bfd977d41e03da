"""The method on tensors of two or three spatial axes; imports torch and numpy, nothing else.

In the order in which a volume meets them: `search` (the points), `gaussian` and `shapes` (their masks), `perturb`
(light and shadow, a batch at a time), `score` (evaluate the model, make scores), `saliency` (scores to a map), and
`glas` (all of these in order). `model` lists what a model may offer, `settings` has every setting. `rglas` explains in
rounds, `scale` and `reference` join several explanations, and `accelerate` gives the same scores faster.
"""
