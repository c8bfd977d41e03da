"""The page on files: what is written, the columns of all tables as the code declares them, and the keys of sidecars.

`python docs/site_pages/written.py` writes docs/files.md, which is read in the repository too; a test compares the two, and
others compare the page with what small runs write.
"""

import re
from pathlib import Path

from glas3d.cli.demo import _TRUTH_COLUMNS as TRUTH
from glas3d.evaluate.localisation.tables import COLUMNS as LOCALISATION
from glas3d.explain.table import DESCRIPTIONS, scales_of
from glas3d.options import documentation
from glas3d.simulate.dataset import _COLUMNS as SIMULATION
from glas3d.simulate.targets import _REGION_COLUMNS as TARGETS
from glas3d.study.derivatives import _FAILED_COLUMNS as FAILED
from glas3d.study.group.files import _COLUMNS as GROUP
from glas3d.study.group.options import GroupOptions
from glas3d.study.training.performance import COLUMNS, OF_A_CASE, POOLED

PAGE = Path(__file__).parents[1] / "files.md"

HEAD = """# Files

Every table is tab-separated text with `n/a` for what is missing, and has a JSON file of the same name next to it, the *sidecar*,
that describes each column with its units. Every map has one too. In names, `<stem>` is the name of the scan without its ending,
`<search>` is `seg-<atlas>`, such as `seg-AAL`, or `desc-grid`; other words in angle brackets stand for what they say; with a grid, `<search>_desc-<...>` is `desc-grid<...>`.
Light, shadow, drop,
evidence, density and score are of probabilities or of log-odds, and have the units that the sidecar says.
"""

TAIL = """
`python docs/site_pages/written.py` writes this page from the code, and tests compare it with what small runs write.
"""

# Files by where they are and what writes them: a name, or names with choices in brackets, and what they hold.
FILES = {
    (
        "Results of a scan",
        "`glas3d explain`, `compare`, `audit`, `figure` and `export` write them into `--out`, or into the folder that they are given.",
    ): [
        ("dataset_description.json", "that the folder is a BIDS derivative, and of which software"),
        (".bidsignore", "which files the BIDS validator has no rules for"),
        ("report.html", "all results, to look at"),
        ("<stem>_<search>_regions.tsv", "a row for each region or point"),
        ("<stem>_<search>_stat-<saliency|light|shadow|drop>_statmap.nii.gz", "maps on the scan's own voxel grid"),
        (
            "<stem>_desc-gridrecursive_<...>",
            "the same of a recursion on a grid; `<search>` has `_desc-recursive` with an atlas",
        ),
        ("<stem>_<search>_desc-round<n>_stat-saliency_statmap.nii.gz", "the map of each round of a recursion"),
        (
            "<stem>_<search>_desc-<part>_<...>",
            "the same for each scale, background, channel or class that a result is made of",
        ),
        ("<stem>_<search>_label-<class>_<...>", "the same for each of several targets"),
        ("<stem>_<search>_desc-methods_regions.tsv", "`compare`: a column for each method"),
        ("<stem>_desc-<method>_stat-attribution_statmap.nii.gz", "`compare`: the map of each method"),
        ("<stem>_<search>_desc-<check>_audit.json", "`audit`: verdict, statement and numbers of each check"),
        ("figures/<result>_<kind>.<png|pdf|svg>", "`figure`"),
        ("figures/hashes.json", "the hashes of the figures, for `verify`; `viewers/` has them too"),
        ("viewers/", "`export`: labels, colours and commands for other viewers"),
    ],
    ("Results of a study", "`glas3d cohort BIDS_DIR OUT participant` writes them into `OUT`."): [
        ("study.json", "batch size, threads, device, settings and hashes, resolved once"),
        (
            "hashes.json",
            "the list of participants and of the group level, and the hashes of the study's own files, for `verify`",
        ),
        ("participants_failed.tsv", "who could not be explained and why; absent when there is nobody"),
        ("atlas/", "a copy of an atlas, or of coordinates, that is not shipped"),
        ("sub-<label>/[ses-<label>/]anat/<...>", "the files of one scan, as above"),
        ("sub-<label>_[ses-<label>_]record.json", "key, probability, folds, and the hash of every file"),
    ],
    ("Results of groups", "`glas3d cohort BIDS_DIR OUT group` writes them into `OUT/group`."): [
        ("provenance.json", "every option, the participants, and the hash of every file"),
        ("group-<group>_<search>_regions.tsv", "the group's map as a table"),
        ("group-<group>_<search>_regions.png", "its picture (`glas3d demo`)"),
        ("group-<group>_<search>_stat-<saliency|mean|variance|overlap>_statmap.nii.gz", "maps of the group"),
        (
            "group-<group>_<search>_desc-<variation|ranks|laterality|relativedensity|slope>_regions.tsv",
            "how scores vary; intervals of ranks; left against right; share of the saliency over share of the volume; slopes",
        ),
        ("group-<group>_<search>_desc-<folds|foldpairs|runs|runpairs>_stability.tsv", "agreement of folds and of runs"),
        (
            "group-<group>_<search>_desc-<column>_correlation.tsv",
            "correlation of scores with a column, or with the change of volume",
        ),
        ("group-<group>_<search>_desc-volumechange_participants.tsv", "that correlation in each participant"),
        (
            "group-<case>vs<control>_<search>_[desc-slope_]statistics.tsv",
            "the test of every region; of all groups: `--omnibus`",
        ),
        ("group-<case>vs<control>_<search>_stat-<t|F|neglog10pfwe>_statmap.nii.gz", "its maps"),
        (
            "group-<case>vs<control>_<search>_desc-strata_<predictions.tsv|regions.tsv>",
            "right and wrong predictions, and their means",
        ),
        (
            "group-<case>vs<control>_<search>_desc-voxels_stat-<t|F|neglog10pfwe|tfce|neglog10ptfcefwe>_statmap.nii.gz",
            "the test of every voxel (`--voxelwise`, `--tfce`)",
        ),
        ("group-<case>vs<control>_<search>_desc-voxels_<clusters|peaks>.tsv", "its clusters and peaks"),
        ("group-<group>_<search>_desc-truth_regions.tsv", "`glas3d demo`: the true effects next to the scores"),
        ("study_<search>_desc-<check>_audit.json", "`audit` of a study"),
    ],
    ("Results of relabelling", "`glas3d.study.relabel_cohort` writes them into its folder."): [
        ("relabelling.json", "the settings, which a run that resumes must have"),
        ("relabelling-<n>_regions.tsv", "the scores with the labels of each relabelling"),
        ("group-<case>vs<control>_desc-relabelled_statistics.tsv", "the test"),
    ],
    ("Models", "`glas3d train BIDS_DIR OUT` writes them into `OUT`."): [
        (
            "<metrics|summary|pooled|predictions>.tsv",
            "performance of each fold, over folds, of all scans together; each scan's probability",
        ),
        ("fold-<n>/configs/<metadata|inference|manifest>.json", "a MONAI bundle, and who trained it"),
        (
            "fold-<n>/models/<model.safetensors|reference.nii.gz|mean.nii.gz|std.nii.gz>",
            "weights and images of the bundle",
        ),
        (
            "fold-<n>/results/<learning|predictions>.tsv",
            "losses by epoch; probabilities of the scans that were left out",
        ),
        ("fold-<n>/docs/README.md", "the model card"),
    ],
    ("Simulated participants", "`glas3d simulate BIDS_DIR` writes them into `BIDS_DIR`."): [
        ("participants.tsv, README.md, descriptions.tsv", "the participants, what they are, and what `desc-` means"),
        (
            "sub-<label>/anat/sub-<label>_space-<space>_res-<mm>_desc-<preproc|...>_T1w.nii.gz",
            "the scans, and their twins",
        ),
        ("truth/desc-<planted_regions|severity_participants>.tsv", "where disease was planted, and how much"),
        ("truth/space-<space>_desc-planted_dseg.nii.gz", "the same as an image"),
        ("truth/sub-<label>_space-<space>_label-WMH_probseg.nii.gz", "lesions"),
    ],
}

# Columns by the tables that have them, as the code declares them.
TABLES = {
    "Tables of regions and points": {
        name: (text, "see the sidecar" if name in scales_of({}) or name == "score_error" else units)
        for name, (text, units) in DESCRIPTIONS.items()
    }
    | {
        "light_sd": (
            "Standard deviation over models; likewise `shadow_sd`, `drop_sd`, `score_sd`, `evidence_sd`, `density_sd`",
            "",
        ),
        "drop_<background>": ("The drop with one of several backgrounds", "as drop"),
        "<method>": ("`compare`: the score by a method", "as its sidecar says"),
    },
    "Tables of groups": GROUP
    | {
        "mean_<group>": ("mean of a group, as the case, the control or a stratum", "as difference"),
        "sd_<group>": ("standard deviation of a group", "as difference"),
        "volume": ("volume of the cluster", "mm3"),
        "regions": ("share of the cluster's voxels in each region", ""),
        "n_participants": ("number of participants", "count"),
    },
    "Performance of models": COLUMNS
    | {"metric": POOLED["metric"]}
    | {"p": (f"{OF_A_CASE['p'][0]}; in `pooled.tsv`: {POOLED['p'][0].lower()}", "probability")},
    "Simulated participants": SIMULATION
    | {"<region>": ("Share of the grey matter of a region that the disease removed", "share, 0 to 1")}
    | {name: text for name, text in (TRUTH | TARGETS).items() if name not in DESCRIPTIONS and name not in SIMULATION},
    "Failed participants": FAILED,
    "Localisation: `glas3d localise`": LOCALISATION,
}

# What the entries of sidecars and other JSON files hold, besides the columns that they describe and the options below.
KEYS = {
    "Account": "`effect`, `accounted`, `largest`: what the regions account for",
    "Against": "the second class of a class difference",
    "AssumeSpace": "whether the check of the space was left out",
    "Atlas": "the atlas by which clusters and peaks are named",
    "AtlasSpace": "the space that an atlas was stated to be in",
    "BIDSVersion": "that of BIDS",
    "BatchSize": "inputs of the model at once",
    "BrainMask": "where the scan was set to 0",
    "Case": "the group whose models' class is positive",
    "Channels": "the names of the model's inputs",
    "Clusters": "how clusters were formed",
    "Control": "the other group",
    "DatasetType": "`derivative`",
    "DegreesOfFreedom": "how they were determined",
    "Description": "what the file holds, in a sentence",
    "Device": "what ran the model",
    "Engine": "the software that ran the network",
    "Evaluations": "how often the model was evaluated",
    "Exchangeable": "what the null distribution exchanges",
    "Files": "the hash of each file that belongs to this one",
    "Floor": "the least share that log-ratios count",
    "Folds": "the numbers of the folds whose models explained the scan",
    "GeneratedBy": "software and versions",
    "Grid": "shape and affine of the grid on which the model was evaluated",
    "Group": "the group that the file is of",
    "Groups": "the participants of each group",
    "InSample": "whether a model explained participants who trained it; `unknown` where it does not say",
    "Input": "name and hash of the scan",
    "Inputs": "names and hashes of what the group level read",
    "K": "how many regions count as the top",
    "Key": "the hash of everything that decides the results of a participant",
    "Laterality": "how it was computed",
    "License": "that of the results",
    "ListedIn": "the file with the list of all results of a study",
    "Mask": "the voxels that were tested, and their hash",
    "Method": "the mode of the explanation, or the method that made the map, with its settings",
    "Model": "name, classes, activation and hash",
    "Models": "the same of all folds",
    "Mean": "mean correlation over participants; `Low` and `High`: its 95 % interval; `P`: its p-value",
    "Low": "see `Mean`",
    "High": "see `Mean`",
    "P": "see `Mean`",
    "Explaining": "how `relabel_cohort` explains",
    "Relabelling": "how labels were permuted",
    "Training": "how `relabel_cohort` trains",
    "Scans": "the scans of a study of relabelling",
    "Runs": "the folders of the runs that are compared",
    "Sessions": "the sessions of each participant whose slope was computed",
    "Unit": "the unit of slopes",
    "N": "number of participants",
    "Name": "title of the data set",
    "NormalisedOver": "what scores were normalised over",
    "Notes": "what a reader must know, in sentences",
    "NullDistribution": "how it was made",
    "NullHypothesis": "what is rejected",
    "Outputs": "the model's outputs for the scan",
    "Pairs": "how many pairs of groups were compared",
    "Participants": "names and hashes of the participants' tables",
    "PeakDistance": "how far apart peaks are at least, in mm",
    "Permutations": "number of draws from the null distribution",
    "Preset": "the settings chosen by one word",
    "Probabilities": "of each class, for the scan",
    "Probability": "of the target, for the scan",
    "Recursion": "settings and rounds of a recursion",
    "Resamples": "of the bootstrap",
    "Resolution": "of the simulated scan",
    "Round": "the number of a round",
    "Scores": "on which scale scores are",
    "Search": "the atlas, grid or points, and their hash",
    "SearchSha256": "the hash of the search",
    "Seed": "of everything random",
    "Settings": "every setting of the method",
    "Sha256": "the hash of the file's own content",
    "Site": "the column of sites",
    "SkullStripped": "of a T1w scan, as BIDS wants it",
    "SmallestP": "the smallest p-value that a test of so few participants can give",
    "SourceDatasets": "where the scans are from",
    "Sources": "the files that a group's file was made from",
    "SpaceCheck": "how much the scan looks like a brain in MNI space",
    "SpatialReference": "of the simulated scan",
    "Statistic": "what a map shows, or a table tests",
    "Stem": "start of the files' names",
    "Study": "the hash of the study's settings",
    "Target": "index and name of the class",
    "Threads": "of each worker",
    "Top": "how many regions of a participant count as the top",
    "Transform": "name and hash of the transform to the template, or how it was determined",
    "Units": "the scale of a map",
    "Version": "of the file's form",
    "With": "what scores are correlated with",
    "Voxels": "how many were tested",
}
OTHERS = {
    "*_audit.json": "`check`, `verdict`, `statement`, and `numbers` with `name`, `value`, `units`, `description`",
    "manifest.json": "`fold`, `folds`, `seed`, `settings` and `settings_sha256`, and the participants under `train`, `validation` "
    "and `test`",
    "metadata.json": "MONAI's `name`, `version`, `task`, `description`, `authors`, `copyright`, `network_data_format`, and our "
    "`glas3d`",
    "inference.json": "MONAI's `network_def`",
}


def option_keys() -> dict[str, str]:
    """Return what the options of the group level mean, by the keys under which they are recorded."""
    texts = documentation(GroupOptions)
    keys = GroupOptions().sidecar_keys()
    return {key: re.split(r"(?<=[a-z)])\.\s", f"{texts[name]} ")[0].strip().rstrip(".") for name, key in keys.items()}


def page() -> str:
    """Return the page in Markdown."""
    parts = [HEAD]
    for (title, command), files in FILES.items():
        parts += [f"\n## {title}\n\n{command}\n\n| file | holds |\n|---|---|\n"]
        parts += [f"| {_code(name)} | {text} |\n" for name, text in files]
    parts.append("\n## Columns\n")
    for title, columns in TABLES.items():
        parts += [f"\n### {title}\n\n| column | holds | units |\n|---|---|---|\n"]
        parts += [f"| `{name}` | {_cell(text)} | {_cell(units)} |\n" for name, (text, units) in columns.items()]
    parts.append("\n## Keys of sidecars\n\nBesides the columns, which have `Description` and `Units` each.\n")
    keys = dict(sorted({**option_keys(), **KEYS}.items(), key=lambda item: item[0].lower()))
    parts += ["\n| key | holds |\n|---|---|\n", *(f"| `{key}` | {_cell(text)} |\n" for key, text in keys.items())]
    parts += ["\n| file | keys |\n|---|---|\n", *(f"| `{name}` | {text} |\n" for name, text in OTHERS.items())]
    return "".join([*parts, TAIL])


def _code(name: str) -> str:
    return ", ".join(f"`{each}`" for each in name.replace("|", " / ").split(", "))


def _cell(text: str) -> str:
    text = " ".join(text.replace("``", "`").split())
    return re.sub(
        r"\|(\w+)\|", r"size of \1", text.replace("|left| + |right|", "size of left + size of right")
    ).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
