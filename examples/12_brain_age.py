"""
Brain age: a regressor's years, explained out of fold
=====================================================

A network estimates the age of OASIS-1 participants without dementia from their maps of grey matter, and each is explained
by the network that was not trained on them. ``activation="none"`` takes the years as they are. The zero of an age estimate
is a convention, so that only shadow is scored (docs/method.md, "Targets that are not probabilities"): the drop of a region
says by how many years the estimate changes when the region is replaced by the training participants' mean. It needs the
data set of 11_real_participants.py, and takes its folder, a voxel size in mm, and numbers of folds, epochs and
participants to explain.
"""

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glas3d import Atlas, Predictor, explain_img
from glas3d.imaging import load_scan, mni_grid, resample_scan
from glas3d.predict import ModelInfo, PaperNet, Standardisation
from glas3d.report import regions_figure
from glas3d.study import GroupMap, read_cohort

OUT = Path("glas3d-examples")
DATA = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT / "oasis" / "data"
RESOLUTION = float(sys.argv[2]) if len(sys.argv) > 2 else 4.0
FOLDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
EPOCHS = int(sys.argv[4]) if len(sys.argv) > 4 else 40
EXPLAINED = int(sys.argv[5]) if len(sys.argv) > 5 else 40

OUT.mkdir(exist_ok=True)
everyone = read_cohort(DATA, suffix="probseg", entities={"label": "GM"}).everyone
people = everyone[everyone["group"] != "AD"].reset_index(drop=True)
grid = mni_grid(RESOLUTION)
scans = torch.as_tensor(np.stack([resample_scan(load_scan(path), grid)[None] for path in people["path"]]))
age = torch.as_tensor(people["age"].to_numpy(np.float32))
print(f"{len(people)} participants without dementia, {age.min():g} to {age.max():g} years", flush=True)

# %%
# Train one regressor for each fold
# ---------------------------------
#
# Folds are drawn from participants sorted by age, so that every fold has all ages. Standardisation, mean and spread of the
# age come from the training participants alone.


class Years(nn.Module):
    """A network whose output is in years."""

    def __init__(self, net, mean, spread):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, x):
        return self.mean + self.spread * self.net(x)


def train_regressor(rows, seed):
    """Return the predictor of age by some participants."""
    torch.manual_seed(seed)
    standardisation = Standardisation.of(scans[rows])
    standardisation = Standardisation(standardisation.mean, standardisation.std, "absolute")
    net = Years(PaperNet(grid.shape, 1, 1, batch_norm=True), age[rows].mean(), age[rows].std())
    steps = max(1, len(rows) // 8)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for part in rows[torch.randperm(len(rows))].tensor_split(steps):
            x = (scans[part] - standardisation.mean) / standardisation.std
            loss = nn.functional.mse_loss(net(x)[:, 0] / net.spread, age[part] / net.spread)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    info = ModelInfo(name="brain-age", channels=1, grid=grid, reference=scans[rows].mean(dim=0).numpy())
    return Predictor(net.eval(), "none", standardisation, "cpu", classes=["years"], info=info)


rank = age.argsort(stable=True).argsort()
fold = rank % FOLDS
models = [train_regressor(torch.nonzero(fold != k)[:, 0], k) for k in range(FOLDS)]

# %%
estimates = torch.stack([models[fold[i]].fit(scans[i])(scans[i][None])[0, 0] for i in range(len(people))])
constant = torch.stack([age[fold != fold[i]].mean() for i in range(len(people))])
print(f"mean absolute error out of fold: {(estimates - age).abs().mean():.2f} years")
print(f"that of the training participants' mean age: {(constant - age).abs().mean():.2f} years")
print(f"correlation with age: {np.corrcoef(estimates, age)[0, 1]:.2f}", flush=True)

# %%
# Explain the oldest participants
# -------------------------------

group = GroupMap("oldest", aal := Atlas.load("AAL"))
for i in age.argsort(descending=True)[:EXPLAINED].tolist():
    group.add(explain_img(people["path"][i], models[fold[i]], "years", aal, fusion="shadow"))
table = group.table()
print(f"highest-scoring regions of the {len(group)} oldest; drop: mean years that the region adds to the estimate")
print(table.sort_values("rank").head(10)[["name", "drop", "score"]].to_string(index=False, float_format="%.3g"))

# %%
title = f"Brain age, the {len(group)} oldest of {len(people)} participants"
regions_figure(group.saliency_img(), table, aal, title=title)(OUT / "12_brain_age.png")
