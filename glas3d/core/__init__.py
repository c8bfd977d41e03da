"""The method on tensors of two or three spatial axes; imports torch and numpy, nothing else.

In the order a volume meets them: `gaussian` (masks), `search` (where to look), `perturb` (light and
shade a batch), `score` (ask the model), `saliency` (scores to a map), `glas` (these in
order), `rglas` (again and again).
"""
