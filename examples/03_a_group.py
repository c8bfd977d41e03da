# %% [markdown]
# # A group: simulated participants, their mean explanation, and a figure after the paper's figure 12
#
# This is what `glas3d demo` does: six AD participants that the model has not seen are explained one by one, their
# normalised scores are summed, and the highest-scoring regions are drawn on the template.

# %%
from pathlib import Path

from glas3d import Atlas, explain_img, load_model
from glas3d.report import regions_figure
from glas3d.simulate import PLANTED, Simulation, scan_img, simulate_participants
from glas3d.study import GroupMap

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

predict, aal = load_model("adnc-simulated"), Atlas.load("AAL")
simulation = Simulation(participants=12, seed=78)
group = GroupMap("AD", aal)
for participant in simulate_participants(simulation):
    if participant.group == "AD":
        result = explain_img(scan_img(simulation, participant.volume), predict, "AD", aal)
        group.add(result)
        print(f"sub-{participant.participant_id}: P(AD) = {result.explanation.probability:.3f}")

# %%
table = group.table()
highest = table.sort_values("rank").head(10)
print(highest.assign(planted=highest["name"].isin(PLANTED)).to_string(index=False, float_format="%.4g"))

# %%
title = f"AD group, {len(group)} simulated participants"
regions_figure(group.saliency_img(), table, aal, title=title)(OUT / "03_a_group.png")
for path in group.save(OUT / "group"):
    print("written:", path)
