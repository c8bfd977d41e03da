# %% [markdown]
# # Where masks may be truncated
#
# Simulated participants are explained by the shipped network with `cut` at several numbers of sigmas, and without. The
# table of docs/speed.md shows the largest change of any probability. The arguments are the page whose table is replaced, a
# number of participants, and the number of regions, fewer than 116 to try the script.

# %%
import sys
from dataclasses import replace
from pathlib import Path

from glas3d import Atlas, explain_img, load_model
from glas3d.simulate import Simulation, scan_img, simulate_participants

PAGE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("glas3d-examples/truncation.md")
SEED = 20261127
CUTS = (4, 4.5, 5, 5.5, 7)
SIGMAS = ((3, 3), (4, 6))  # voxels of 4 mm
BEGIN, END = "<!-- truncation: begin -->", "<!-- truncation: end -->"

# %%
predict, aal = load_model("adnc-simulated"), Atlas.load("AAL")
REGIONS = int(sys.argv[3]) if len(sys.argv) > 3 else len(aal.table)
atlas = replace(aal, table=aal.table.head(REGIONS))
simulation = Simulation(participants=int(sys.argv[2]) if len(sys.argv) > 2 else 8, seed=SEED)
scans = [scan_img(simulation, participant.volume) for participant in simulate_participants(simulation)]


# %%
def light_and_drop(scan, sigmas, **options):
    """Return P(AD) in the light, and its drop in the shadow, of the regions, by the network itself."""
    light, shadow = sigmas
    result = explain_img(
        scan, predict, "AD", atlas, sigma_light=light, sigma_shadow=shadow, unit="voxel", engine="eager", **options
    )
    assert not options or result.explanation.settings["recomputed"]["recomputed"]
    return result.table[["light", "drop"]]


rows = []
for sigmas in SIGMAS:
    in_full = [light_and_drop(scan, sigmas) for scan in scans]
    largest = max(float(effects["drop"].abs().max()) for effects in in_full)
    for cut in CUTS:
        truncated = [light_and_drop(scan, sigmas, cut=cut, cut_always=True) for scan in scans]
        change = max(float((a - b).abs().max().max()) for a, b in zip(in_full, truncated, strict=True))
        rows.append(f"| {sigmas[0]} and {sigmas[1]} | {cut:g} | {change:.0e} | {change / largest:.0e} |")
        print(rows[-1], flush=True)

# %%
table = "\n".join(
    [
        f"{len(scans)} simulated participants, the shipped network, {REGIONS} regions; effects are drops of `P`:",
        "",
        "| sigma of light and shadow, voxels | `cut` | largest change of `P` | of the largest effect |",
        "|---|---|---|---|",
        *rows,
    ]
)
before, _, rest = (PAGE.read_text(encoding="utf-8") if PAGE.exists() else "").partition(BEGIN)
_, _, after = rest.partition(END)
PAGE.parent.mkdir(parents=True, exist_ok=True)
PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
print(f"written: {PAGE}")
