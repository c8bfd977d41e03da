"""One thread (tiny tensors; the cores are shared), and property tests that are quick and repeatable."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "glas3d", max_examples=20, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("glas3d")
