"""What a report says in words: summary, warnings, what not to conclude, a methods paragraph and citations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.counts import counted, enumerated
from glas3d.display import shown_output
from glas3d.evaluate.rivals.methods import METHODS
from glas3d.explain.notes import account_sentence
from glas3d.report.webpage.results import Result, Results

# Shares of the effect outside of which models were seen that use something else than the regions, or count it twice:
# honest networks had 0.45 to 0.93, networks that read a mark outside the brain -0.17 and 0.20 (docs/method.md).
_LEAST, _MOST = 0.4, 1.3
_STRONGEST = 5
_SIDES = {"L": "left", "R": "right"}
_SCORES = {
    "product": "light times shadow",
    "light": "light",
    "shadow": "shadow",
    "mean": "evidence",
}
_KERNELS = {
    "gaussian": "round Gaussian masks",
    "exponential": "round exponential masks",
    "ellipsoid": "Gaussian masks fitted to each region",
    "segment": "masks shaped like the regions, with blurred borders",
}

GLAS_PAPER = (
    "Oh K, Kim S, Oh I-S (2020). Salient explanation for fine-grained classification. IEEE Access 8. "
    "doi:10.1109/ACCESS.2020.2980742"
)
AAL_PAPER = (
    "Tzourio-Mazoyer N, Landeau B, Papathanassiou D, et al. (2002). Automated anatomical labeling of activations in "
    "SPM "
    "using a macroscopic anatomical parcellation of the MNI MRI single-subject brain. NeuroImage 15(1):273-289. "
    "doi:10.1006/nimg.2001.0978"
)
TEMPLATE_PAPER = (
    "Fonov V, Evans AC, Botteron K, et al. (2011). Unbiased average age-appropriate atlases for pediatric studies. "
    "NeuroImage 54(1):313-327. doi:10.1016/j.neuroimage.2010.07.033"
)
TFCE_PAPER = (
    "Smith SM, Nichols TE (2009). Threshold-free cluster enhancement: addressing problems of smoothing, threshold "
    "dependence and localisation in cluster inference. NeuroImage 44(1):83-98. doi:10.1016/j.neuroimage.2008.03.061"
)
PERMUTATION_PAPER = (
    "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE (2014). Permutation inference for the general linear "
    "model. NeuroImage 92:381-397. doi:10.1016/j.neuroimage.2014.01.060"
)
NIIVUE = "NiiVue, a WebGL viewer of medical images. https://github.com/niivue/niivue"


def target_of(provenance: Mapping[str, Any]) -> str:
    """Return the name of the class that was explained, with the class it was compared with."""
    name = str(provenance.get("Target", {}).get("class", "the target"))
    return f"{name} over {provenance['Against'].get('class')}" if provenance.get("Against") else name


def model_of(provenance: Mapping[str, Any]) -> str:
    """Return the name of the model."""
    return str(provenance.get("Model", {}).get("name", "n/a"))


def unit_of_score(result: Result) -> str:
    """Return the units of the score."""
    return result.columns.get("score", ("", ""))[1]


def summary(result: Result) -> list[str]:
    """Return the sentences that a report of one explanation, or of one group, begins with."""
    provenance = result.provenance
    target = target_of(provenance)
    sentences = []
    if "Group" in provenance:
        participants = participants_of(result)
        size = counted(len(participants), "participant") if participants else "the participants"
        sentences.append(
            f"The map combines the explanations of {size} of the group {provenance['Group']} for the target {target}."
        )
        probabilities = [each["probability"] for each in participants if each.get("probability") is not None]
        if probabilities:
            low, high = min(probabilities), max(probabilities)
            sentences.append(
                f"The model gave them a mean probability of {np.mean(probabilities):.3f} "
                f"(from {low:.3f} to {high:.3f}) for {target}."
            )
    elif provenance.get("Probability") is not None:
        classes = provenance.get("Model", {}).get("classes")
        among = f", among the classes {' and '.join(map(str, classes))}" if classes else ""
        output = shown_output(provenance["Target"]["class"], provenance["Probability"])
        the_probability = "the probability " if output.startswith("P(") else "the "
        sentences.append(
            f"The model {model_of(provenance)} gives this {result.explained} {the_probability}{output}{among}."
        )
    sentences.append(account_text(result))
    lowest = result.table.dropna(subset=["score"]).nsmallest(1, "score").to_dict("records")
    if lowest and lowest[0]["score"] < 0:
        sentences.append(f"{lowest[0]['name']} speaks most against {target}: score {_score_of(lowest[0])}.")
    return sentences


def account_text(result: Result) -> str:
    """Return how much of the effect the regions account for, as a sentence; why not, where it is not known."""
    account, searched = result.provenance.get("Account"), searched_parts(result)
    if account is None:
        return f"What the {searched} account for was not measured: it needs light, shadow and one background alone."
    text = account_sentence(account, result.table, searched)
    if account["accounted"] is not None or account["partition"]:
        return text
    if result.is_region_wise:
        return (
            f"{text} That of masks in the shape of the regions (the preset evidence) does, without overlap or scales."
        )
    if "grid" in result.provenance.get("Search", {}):
        return f"{text} On a grid, masks with a sigma of 0.4 cells come near to that."
    return text


def searched_parts(result: Result) -> str:
    """Return what the rows of a result's table are, in the plural."""
    search = result.provenance.get("Search", {})
    return "regions" if result.is_region_wise or "segments" in search else "points"


def strongest(result: Result) -> list[dict[str, Any]]:
    """Return the five highest-scoring regions: ``name``, ``where``, ``score`` and ``direction`` in words.

    A group's score has the mean over participants next to it, on whose scale the bars of the page are drawn.
    """
    table = result.table.dropna(subset=["rank"]).sort_values("rank").head(_STRONGEST)
    target = target_of(result.provenance)
    words = {"for": f"speaks for {target}", "against": f"speaks against {target}"}
    described = []
    for row in table.to_dict("records"):
        side = _SIDES.get(str(row.get("hemisphere")), "")
        known = all(pd.notna(row.get(axis)) for axis in "xyz")
        place = ", ".join(f"{round(row[axis])}" for axis in "xyz") + " mm" if known else ""
        if "row" in row:
            place = f"row {row['row']:z.0f}, column {row['column']:z.0f}"
        described.append(
            {
                "name": str(row["name"]),
                "where": "; ".join(filter(None, [side, place])),
                "score": _score_of(row),
                "direction": words.get(str(row.get("direction")), "has no direction"),
            }
        )
    return described


def _score_of(row: Mapping[Hashable, Any]) -> str:
    """Return the score of a region, with the mean over participants where the table has it."""
    return f"{row['score']:.3g}" + (f" (mean {row['mean']:.3g})" if "mean" in row else "")


def warnings_of(result: Result) -> list[str]:
    """Return what a reader must not overlook: the notes on the result, and what its numbers say against it."""
    provenance = result.provenance
    warnings = [sentence(note) for note in provenance.get("Notes", ())]
    in_sample = provenance.get("InSample")
    if in_sample is True:
        warnings.append(
            "In sample: a model that was trained on this participant explained them. It may have learnt the scan by "
            "heart."
        )
    elif in_sample == "unknown":
        warnings.append(
            "Whether a model was explained on participants it was trained on is not known: no training record."
        )
    account, searched = provenance.get("Account") or {}, searched_parts(result)
    accounted = account.get("accounted")
    if accounted is not None and accounted < _LEAST:
        warnings.append(
            f"The {searched} account for only {accounted:z.0%} of the effect. The model may use something outside of "
            f"them, such as skull, air or an artefact, or {searched} only together: glas3d audit searches the whole "
            "volume for it."
        )
    if accounted is not None and accounted > _MOST:
        warnings.append(
            f"The {searched} account for {accounted:z.0%} of the effect, more than all: what they contribute overlaps, "
            "and no "
            "single share should be taken literally."
        )
    missing = provenance.get("Search", {}).get("regions_without_voxels") or []
    if missing:
        warnings.append(f"Regions without a voxel on the model's grid have no score: {', '.join(map(str, missing))}.")
    return list(dict.fromkeys(warnings))


def sentence(note: str) -> str:
    """Return a note as a sentence, with a capital letter and a full stop."""
    return note[:1].upper() + note[1:] + ("" if note.endswith(".") else ".")


def not_to_conclude(result: Result) -> list[str]:
    """Return what must not be read into the result."""
    provenance = result.provenance
    background = provenance.get("Settings", {}).get("background", "the background")
    statements = [
        "It shows which anatomy this model used. It does not show where a brain is diseased, and it is no diagnosis."
        if result.explained == "scan"
        else "It shows which parts of the image this model used, not what is there.",
        f"Scores depend on what replaces the parts that are removed (here: {background}) and on the size of the masks. "
        "Another choice can change the ranks.",
    ]
    if provenance.get("Settings", {}).get("fusion", "product") == "product":
        statements.append(
            "A score has no sign: a region that speaks against the target can score high. Its direction is a column "
            "of its "
            "own."
        )
    if "Group" in provenance:
        statements.append(
            "A high mean score is no test. Whether groups differ is shown by the comparisons, with p-values corrected "
            "for "
            "all regions; and a difference between groups is one of what the model uses, not of tissue."
        )
    elif result.explained == "image":
        statements.append("One map is one image. A score has no error bar and no p-value.")
    else:
        statements.append(
            "Read groups, not single participants: one map is one scan. A score has no error bar and no p-value, and "
            "a second scan of the same person can rank regions otherwise. Before a region is named, look at several "
            "scans, models or participants."
        )
    return statements


def methods(results: Results) -> str:
    """Return a paragraph on what was done, in the past tense, ready to paste into a manuscript."""
    first = (*results.groups, *results.explanations, *results.comparisons)[0]
    provenance = first.provenance
    software = _software(provenance)
    model, settings = provenance.get("Model", {}), provenance.get("Settings", {})
    if results.groups or results.explanations:
        sentences = [
            f"Explanations of the classifier were computed by Gaussian light and shadow (GLAS; Oh et al., 2020), as "
            f"implemented in {software}.",
            _model_sentence(model, provenance),
            _search_sentence(first, settings),
            _score_sentence(first, settings),
            *_mode_sentences(settings),
        ]
    else:  # each method has settings of its own
        sentences = [
            f"Explanations of the classifier were computed with {software}.",
            _model_sentence(model, provenance),
        ]
    sentences += _group_sentences(results)
    sentences += dict.fromkeys(_comparison_sentence(each) for each in results.comparisons)
    return " ".join(sentence for sentence in sentences if sentence)


def _comparison_sentence(result: Result) -> str:
    """Return which methods were compared, and the units of each."""
    described = []
    for name in map(str, result.provenance.get("Method", ())):
        method = METHODS.get(name)
        facts = [] if method is None else [method.summary, *([method.source] if method.source else [])]
        units = result.columns.get(name, ("", ""))[1]
        described.append(f"{name} ({'; '.join([*facts, *([f'units: {units}'] if units else [])])})")
    return f"Values of {_searched(result)} were computed by {enumerated(described)}." if described else ""


def _mode_sentences(settings: Mapping[str, Any]) -> list[str]:
    """Return what was done beyond a single explanation: several rounds, scales or backgrounds."""
    sentences = []
    if "consensus" in settings:
        sentences.append(
            "This was done with each of these replacements; the score is the median of their scores, each divided by "
            "the sum of the sizes of all its scores."
        )
    if "scales" in settings:
        factors = enumerated([f"{factor:g}" for factor in settings["scales"]])
        sentences.append(f"Of these scales ({factors} times the usual), each part has the one that explains it best.")
    if "recursion" in settings:
        sentences.append(
            "Highest-scoring parts were masked out and the rest was explained again, round after round (RGLAS, "
            f"Algorithm 1 of Oh et al., 2020; threshold {settings['recursion'].get('threshold')})."
        )
    if "coarse_to_fine" in settings:
        budget = settings["coarse_to_fine"].get("budget")
        if settings.get("kernel") == "segment":
            sentences.append(
                "Neighbouring parts were masked together, and the groups that did most were divided, for a share of "
                f"{budget} of the model evaluations; what a group did was shared among its parts by their size."
            )
        else:
            sentences.append(
                f"The model was evaluated for a share of {budget} of the parts; other scores were estimated."
            )
    return sentences


def _software(provenance: Mapping[str, Any]) -> str:
    records = provenance.get("GeneratedBy") or [{}]
    record = records[0]
    own = f"{record.get('Name', 'glas3d')} {record.get('Version', '')}".strip()
    names = {"Python": "Python", "torch": "PyTorch", "numpy": "NumPy", "nibabel": "nibabel"}
    others = ", ".join(f"{label} {record[name]}" for name, label in names.items() if name in record)
    return f"{own} ({others})" if others else own


def _model_sentence(model: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    if not model:
        return ""
    digest = f", SHA-256 {str(model['sha256'])[:12]}" if model.get("sha256") else ""
    activation = {"softmax": "a softmax", "sigmoid": "a sigmoid", "none": "no further activation"}
    turned = activation.get(str(model.get("activation")))
    outputs = f"; its outputs were read as probabilities with {turned}" if turned else ""
    classes = model.get("classes")
    among = f" among the classes {' and '.join(map(str, classes))}" if classes else ""
    return f"The class {target_of(provenance)}{among} was explained for the model {model.get('name')}{digest}{outputs}."


def _searched(result: Result) -> str:
    """Return what was searched, for a manuscript."""
    search = result.provenance.get("Search", {})
    n = int(result.table["n_voxels"].gt(0).sum()) if "n_voxels" in result.table else len(result.table)
    if "atlas" in search:
        name = str(search["atlas"])
        source = " (Tzourio-Mazoyer et al., 2002)" if name == "AAL" else ""
        return f"each of {counted(n, 'region')} of the atlas {name}{source}"
    return f"each of {len(result.table)} search points"


def _search_sentence(result: Result, settings: Mapping[str, Any]) -> str:
    kernel = _KERNELS.get(str(settings.get("kernel")), "masks")
    unit = {"mm": "mm", "voxel": "voxels" if result.explained == "scan" else "pixels"}.get(
        str(settings.get("unit")), ""
    )
    sigmas = [
        f"{name} {' / '.join(f'{each:.3g}' for each in np.ravel(settings[key]))} {unit}".strip()
        for name, key in (("light", "sigma_light"), ("shadow", "sigma_shadow"))
        if settings.get(key) is not None
    ]
    sizes = f" (standard deviation: {', '.join(sigmas)})" if sigmas else ""
    background = settings.get("background")
    replaced = f" What a mask removed was replaced by {_background(background)}." if background is not None else ""
    return (
        f"For {_searched(result)}, the model was evaluated on the {result.explained} with only that part retained "
        f"(light) and with that part removed (shadow), by {kernel}{sizes}.{replaced}"
    )


def _background(name: object) -> str:
    text = str(name)
    return "zero intensity (darkness)" if text in ("0", "0.0") else f"the {text}" if "reference" in text else text


def _score_sentence(result: Result, settings: Mapping[str, Any]) -> str:
    scale = (
        "log-odds of the class against all others" if settings.get("link") == "logit" else "probability of the class"
    )
    fusion = str(settings.get("fusion", "product"))
    meaning, part = _SCORES.get(fusion, fusion), searched_parts(result).removesuffix("s")
    detail = {
        "product": f"the score of a {part} was the product of its light and the absolute change caused by removing it",
        "mean": f"the score of a {part} was its evidence, the mean of what it added to the background alone and of "
        "what the "
        "whole lost without it",
    }.get(fusion, f"the score of a {part} was its {meaning}")
    evaluations = settings.get("evaluations")
    cost = f" Each explanation took {evaluations} model evaluations." if evaluations else ""
    return f"On the scale of the {scale}, {detail}.{cost}"


def _group_sentences(results: Results) -> list[str]:
    sentences: list[str] = []
    for group in results.groups:
        n = len(participants_of(group))
        name = group.provenance.get("Group")
        how = (
            "The group's map was the mean evidence, divided by its largest absolute value"
            if group.provenance.get("Settings", {}).get("fusion") == "mean"
            else "The participants' scores were min-max normalised over the regions, summed, and normalised again"
        )
        sentences.append(
            f"The group {name} had {counted(n, 'participant')}."
            if sentences
            else f"{how}. The group {name} had {counted(n, 'participant')}."
        )
    if results.provenance.get("InSample") is False:
        sentences.append("Every participant was explained with a model that was not trained on them.")
    for test in results.tests[:1]:
        record = test.provenance
        parts = [f"Differences between groups were tested region by region ({record.get('Statistic', 't')})"]
        if record.get("Permutations"):
            parts.append(
                f"with {record['Permutations']} draws of the null distribution (seed {record.get('Seed')}), p-values "
                "being "
                "corrected for all regions by the largest statistic of each draw"
            )
        if record.get("Covariates"):
            parts.append(f"and covariates held fixed: {', '.join(map(str, record['Covariates']))}")
        sentences.append(" ".join(parts) + ".")
    return sentences


def citations(results: Results) -> list[str]:
    """Return the publications that a user of these results should cite."""
    every = (*results.groups, *results.explanations, *results.comparisons)
    cited = [GLAS_PAPER]
    if any(each.provenance.get("Search", {}).get("atlas") == "AAL" for each in every):
        cited.append(AAL_PAPER)
    if all(each.explained == "image" for each in every):
        return cited
    cited.append(TEMPLATE_PAPER)
    if results.tests:
        cited.append(PERMUTATION_PAPER)
    if results.provenance.get("Voxelwise"):
        cited.append(TFCE_PAPER)
    return [*cited, NIIVUE] if results.groups or results.explanations else cited


def participants_of(result: Result) -> Sequence[Mapping[str, Any]]:
    """Return what a group's map records of its participants; empty where it records nothing."""
    saliency = result.maps.get("saliency")
    return [] if saliency is None else saliency.sidecar.get("Participants", [])
