# %% [markdown]
# # The pictures of docs/figures.md
#
# A simulated study of twenty participants is explained by evidence, and one participant also at several scales and by several
# methods. Every picture is drawn by the code that `glas3d figure` runs.
#
# `python docs/measure/figures.py docs/figures 20` writes the pictures in some minutes; without arguments, of four
# participants.

# %%
import sys
import warnings
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

from glas3d import GlasWarning, explain_img, load_model
from glas3d.cli import run
from glas3d.evaluate import compare
from glas3d.report.folder import shown_in
from glas3d.report.kinds import draw, kinds_of

PICTURES = Path(sys.argv[1] if len(sys.argv) > 1 else "glas3d-examples/figures")
PARTICIPANTS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
# Where results of an earlier run are, to draw them again.
RESULTS = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(mkdtemp())
MODEL = "adnc-simulated"
PICTURES.mkdir(parents=True, exist_ok=True)
warnings.simplefilter("ignore", GlasWarning)  # the network's output is saturated for some participants

# %% [markdown]
# ## The results

# %%
data, study = RESULTS / "bids", RESULTS / "study"
if not (study / "group").exists():
    commands = (
        ["simulate", data, "--participants", PARTICIPANTS, "--seed", 11],
        ["cohort", data, study, "participant", "--model", MODEL, "--preset", "evidence", "--no-report"],
        ["cohort", data, study, "group", "--n-perm", 500, "--no-report"],
    )
    for command in commands:
        assert run([str(word) for word in command]) == 0
scan = min(data.glob("sub-0001/anat/*_T1w.nii.gz"))
predict = load_model(MODEL)
FULL = PARTICIPANTS >= 8
if FULL and not (RESULTS / "scales").exists():
    explain_img(scan, predict, "AD", preset="evidence", scales=(1, 2, 4), folder=RESULTS / "scales")
if FULL and not (RESULTS / "methods").exists():
    methods = ("glas_evidence", "glas_paper", "feature_ablation", "integrated_gradients", "difference")
    compare(scan, predict, "AD", methods, folder=RESULTS / "methods")

# %% [markdown]
# ## The pictures


# %%
def picture(folder, kind, dpi=60, name=None):
    """Draw the first result of a folder that has a figure of this kind, in few colours, so that the file is small."""
    shown = next(each for each in shown_in(folder) if kind in kinds_of(each))
    path = PICTURES / f"{name or kind}.png"
    draw(shown, kind).savefig(path, dpi=dpi)
    Image.open(path).convert("RGB").quantize(255, Image.Quantize.FASTOCTREE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


for kind in ("regions", "mosaic", "glass", "surface", "bars", "light-shadow", "groups"):
    picture(study, kind)
if FULL:
    picture(RESULTS / "scales", "scales")
    picture(RESULTS / "methods", "methods")
