"""The HTML report: from a folder as from memory, the same bytes each time, and text that stays text."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, __version__
from glas3d.evaluate.rivals.methods import METHODS
from glas3d.explain.dataset import describe_dataset
from glas3d.output import described_table, write_each
from glas3d.report import write_report
from glas3d.report.folder import shown_in
from glas3d.study.group.group_map import GroupMap

RECORD = {
    "Input": {"name": "sub-07_T1w.nii.gz"},
    "Target": {"class": "AD"},
    "Model": {"name": "m"},
    "Method": ["glas", "lime"],
    "Settings": {"methods": ["glas", "lime"], "glas": {"fusion": "mean", "link": "logit"}, "lime": {}},
    "Search": {"atlas": "few"},
    "Probability": 0.8123,
    "Notes": ["the model learnt nothing: at all"],
}
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;"


class Parsed(HTMLParser):
    """The elements of a page, and its text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.blocks = [], "", []
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")
        if self._raw:
            self.blocks.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if self._raw:
            self.blocks[-1][2] += data
        else:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def page(path):
    return Parsed(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(explained, scan_path, tmp_path_factory):
    """Return the folder of the explanation, as ``glas3d explain`` writes it."""
    out = tmp_path_factory.mktemp("results") / "out"
    explained.save(out)
    describe_dataset(out, [scan_path])
    return out


@pytest.mark.usefixtures("draws_figures")
def test_a_page_of_files_is_that_of_the_result_in_memory(folder, explained, tmp_path):
    written = write_report(folder)
    assert written == folder / "report.html"
    assert explained.report(tmp_path / "own.html") == tmp_path / "own.html"
    assert written.read_bytes() == (tmp_path / "own.html").read_bytes()


def test_the_scan_is_found_where_it_was_or_given_and_left_out_on_demand(folder, scan_path, tmp_path):
    with_scan = write_report(folder).read_bytes()
    assert write_report(folder, with_scan=False).read_bytes() != with_scan
    moved = tmp_path / "moved" / "out"
    shutil.copytree(folder, moved)  # the recorded source is relative, and not there any more
    assert write_report(moved).read_bytes() != with_scan
    assert write_report(moved, scans=[scan_path]).read_bytes() == with_scan


@pytest.mark.usefixtures("draws_figures")
def test_the_figure_is_a_picture_with_words(folder):
    (image,) = page(write_report(folder)).all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "Hippocampus_L" in image["alt"]


def test_the_page_says_in_words_what_was_found(folder, explained):
    shown = page(write_report(folder))
    text = " ".join(shown.text.split())
    account, table = explained.provenance["Account"], explained.table
    first = table.sort_values("rank").iloc[0]
    assert f"P(AD) = {explained.probability:.3f}" in text
    assert f"account for {account['accounted']:.0%} of the effect" in text
    assert first["name"] == "Hippocampus_L"
    assert f"Hippocampus_L (left; {first['x']:.0f}, {first['y']:.0f}, {first['z']:.0f} mm)" in text
    assert f"score {first['score']:.3g}, speaks for AD" in text
    assert "no diagnosis" in text
    assert "Read groups, not single participants" in text
    assert explained.provenance["Search"]["sha256"] in text
    assert explained.provenance["Input"]["sha256"] in text
    assert f"glas3d {__version__} (Python" in text
    assert "For each of 8 regions of the atlas few" in text
    rows = [attrs for tag, attrs in shown.elements if tag == "tr" and "data-place" in attrs]
    assert len(rows) == len(table)
    places = [[float(value) for value in row["data-place"].split()] for row in rows]
    assert places == table.sort_values("rank")[["x", "y", "z"]].to_numpy().tolist()


def test_text_from_files_stays_text(folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    plain = page(write_report(folder))
    for path in out.glob("*_regions.tsv"):
        path.write_text(path.read_text().replace("Hippocampus_L", HOSTILE))
    for path in out.glob("*_regions.json"):
        sidecar = json.loads(path.read_text())
        sidecar["Input"]["name"] = sidecar["Target"]["class"] = sidecar["Model"]["name"] = HOSTILE
        sidecar["Notes"] = [HOSTILE]
        sidecar[HOSTILE] = {HOSTILE: HOSTILE}
        path.write_text(json.dumps(sidecar))
    numbers = [{"name": HOSTILE, "value": 1, "description": HOSTILE}]
    audit = {"check": HOSTILE, "verdict": HOSTILE, "statement": HOSTILE, "numbers": numbers}
    (out / "sub-07_audit.json").write_text(json.dumps(audit))
    shown = page(write_report(out))
    assert shown.text.count(HOSTILE) > 12
    assert len(shown.all("script")) == len(plain.all("script"))
    assert [image["src"][:10] for image in shown.all("img")] == [image["src"][:10] for image in plain.all("img")]
    assert not [name for _, attrs in shown.elements for name in attrs if name.startswith("on")]


def test_numbers_of_audits_are_rounded_and_have_units(folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    numbers = [
        {"name": "accounted", "value": 0.7234567891, "units": "share", "description": "sum of the evidence"},
        {"name": "scans", "value": 12, "units": "count", "description": "scans explained"},
        {"name": "rho", "value": None, "units": "rho", "description": "correlation"},
    ]
    audit = {"check": "accounted", "verdict": "pass", "statement": "Well.", "numbers": numbers}
    (out / "sub-07_audit.json").write_text(json.dumps(audit))
    text = page(write_report(out)).text
    assert "0.7234567891" not in text
    for row in ("accounted 0.723 share sum of the evidence", "scans 12 count scans", "rho n/a rho correlation"):
        assert row in " ".join(text.split())


def test_methods_are_sorted_by_the_first_of_them(folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    table = pd.DataFrame(
        {"index": [1, 2, 3], "name": ["a", "b", "c"], "glas": [0.1, 0.3, 0.2], "lime": [3.0, 1.0, 2.0]}
    )
    columns = {name: (name, "log-odds" if name == "glas" else "") for name in table}
    write_each(out, described_table("sub-07_T1w_seg-few_desc-methods_regions", table, columns, **RECORD))
    shown = page(write_report(out))
    text = " ".join(shown.text.partition("Value of each region by each method (glas: log-odds)")[2].split())
    assert text.startswith("name glas lime b 0.3 1 c 0.2 2 a 0.1 3")
    (head,) = [attrs for attrs in shown.all("th") if attrs.get("aria-sort") == "descending"]
    assert "P(AD) = 0.812. Value of each region by each method (glas: log-odds)" in shown.text
    assert "The model learnt nothing: at all." in shown.text.partition("Summary")[0]
    assert head == {"scope": "col", "title": "glas (log-odds)", "class": "number", "aria-sort": "descending"}


def test_what_a_manuscript_says_of_methods_is_what_they_did(tmp_path):
    """Methods that were compared have settings of their own; no score of another is described."""
    table = pd.DataFrame({"index": [1, 2], "name": ["a", "b"], "glas": [0.1, 0.3], "lime": [3.0, 1.0]})
    columns = {name: (name, "log-odds" if name == "glas" else "") for name in table}
    write_each(tmp_path, described_table("sub-07_T1w_seg-few_desc-methods_regions", table, columns, **RECORD))
    text = " ".join(page(write_report(tmp_path)).text.split())
    assert "product" not in text
    assert "On the scale of the probability" not in text
    lime = f"lime ({METHODS['lime'].summary}; {METHODS['lime'].source})"
    assert f"units: log-odds) and {lime}" in text
    assert "Values of each of 2 regions of the atlas few were computed by glas" in text
    assert "NiiVue" not in text.partition("Please cite")[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"consensus": "median", "references": ["a", "b"]}, "the score is the median of their scores"),
        ({"scales": [0.5, 2], "sigma_light": [4.0, 16.0]}, "light 4 / 16 mm"),
        ({"recursion": {"threshold": 0.8}}, "Algorithm 1 of Oh et al., 2020; threshold 0.8"),
    ],
)
def test_what_a_manuscript_says_names_the_mode(explained, tmp_path, settings, words):
    changed = {**explained.provenance, "Settings": {**explained.provenance["Settings"], **settings}}
    plain, shown = (
        " ".join(page(each.report(tmp_path / "page.html")).text.split())
        for each in (explained, replace(explained, provenance=changed))
    )
    assert words in shown
    assert words not in plain


def test_nothing_but_the_page_itself_may_run_or_load(folder):
    shown = page(write_report(folder))
    policy = next(attrs["content"] for attrs in shown.all("meta") if attrs.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        blocks = [text for name, attrs, text in shown.blocks if name == tag and attrs.get("type") != "application/json"]
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in blocks]
        assert [f"'sha256-{each}'" for each in hashes] == rules[kind].split()
    assert "http" not in policy
    assert not [attrs for attrs in shown.all("link") + shown.all("iframe") if attrs]
    assert all(not image["src"].startswith("http") for image in shown.all("img"))
    assert not re.search(r"@import|url\(", next(text for name, _, text in shown.blocks if name == "style"))


def test_warnings_come_first(explained, tmp_path):
    account = {**explained.provenance["Account"], "accounted": 0.2}
    saturated = "the output is saturated: P = 1"
    notes = {"Notes": [saturated], "Account": account, "InSample": True}
    warned = replace(explained, provenance={**explained.provenance, **notes})
    text = page(warned.report(tmp_path / "warned.html")).text
    assert text.index("The output is saturated: P = 1.") < text.index("Summary")
    assert text.index("account for only 20%") < text.index("Summary")
    assert text.index("In sample") < text.index("Summary")
    assert "Before you read on" not in page(explained.report(tmp_path / "plain.html")).text


def test_words_follow_the_search(explained, tmp_path):
    """A grid has points and no regions, and whether masks add up there is no matter of a preset."""
    gaps = {**explained.provenance["Account"], "accounted": None, "largest": None, "partition": False}
    on_regions, on_grid = (
        " ".join(page(replace(explained, provenance=each).report(tmp_path / "page.html")).text.split())
        for each in (
            {**explained.provenance, "Account": gaps},
            {**explained.provenance, "Account": gaps, "Search": {"grid": 4}},
        )
    )
    assert "What the regions account for is not available: evidence adds up only where" in on_regions
    assert "(the preset evidence) does" in on_regions
    assert "What the points account for is not available: evidence adds up only where" in on_grid
    assert "preset evidence" not in on_grid
    assert "masks with a sigma of 0.4 cells" in on_grid
    assert "the score of a region" not in on_grid


def test_a_study_shows_its_groups_and_participants(explained, few, tmp_path):
    group = GroupMap("AD", few)
    noted = replace(explained, provenance={**explained.provenance, "Notes": ["the map is flat: all are 0"]})
    for number, each in enumerate((noted, explained, explained)):
        group.add(replace(each, stem=each.stem.replace("sub-07", f"sub-0{number}")))
    group.save(tmp_path / "group")
    text = " ".join(page(write_report(tmp_path)).text.split())
    assert "combines the explanations of 3 participants of the group AD" in text
    assert f"mean probability of {explained.probability:.3f}" in text
    assert f"account for {explained.provenance['Account']['accounted']:.0%} of the effect" in text
    assert text.count("sub-07_T1w.nii.gz AD ") == 3
    assert "The group AD had 3 participants." in text
    assert "The map is flat: 1 of 3 participants, such as that of sub-00." in text
    assert "Read groups" not in text  # it is one


def test_the_statistic_z_is_no_coordinate(explained, few, tmp_path):
    """Rows of a correlation lead to their regions, and no viewer paints coordinates."""
    group = GroupMap("AD", few)
    group.add(explained)
    group.save(tmp_path / "group")
    regions = explained.table.sort_values("index")
    tested = regions[["index", "name"]].assign(r=0.5, z=-99.25, p_fwe=np.linspace(0.01, 0.9, len(regions)))
    columns = {name: (f"what {name} is", "standard errors" if name == "z" else "") for name in tested}
    record = {"Group": "AD", "Description": "correlation with age"}
    write_each(tmp_path / "group", described_table("group-AD_seg-few_desc-age_correlation", tested, columns, **record))
    shown = page(write_report(tmp_path))
    places = [attrs["data-place"] for attrs in shown.all("tr") if "data-place" in attrs]
    assert {tuple(map(float, each.split())) for each in places} == {
        *zip(*(regions[axis] for axis in "xyz"), strict=True)
    }
    assert len(places) == 2 * len(regions)
    data = json.loads(next(text for _, attrs, text in shown.blocks if attrs.get("id") == "data"))
    maps = {key: {each["key"]: each["units"] for each in view["maps"]} for key, view in data["views"].items()}
    assert maps["test-0"] == {"r": "", "z_statistic": "standard errors"}
    assert "z" not in maps["group-0"]
    heads = [attrs["title"] for attrs in shown.all("th") if attrs.get("aria-sort") == "ascending"]
    assert heads[1] == "what p_fwe is", "the column by which it is sorted"


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(GlasError, match="no results of scans or groups in"):
        write_report(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(GlasError, match="run the group level of the study"):
        write_report(tmp_path)
    with pytest.raises(GlasError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_a_damaged_sidecar_is_named_and_the_old_report_is_kept(folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "report.html").write_text("old")
    (out / "sub-07_T1w_seg-few_regions.json").write_text("{")
    with pytest.raises(
        GlasError, match=r"a sidecar must be JSON in UTF-8, .*regions\.json is not: .*; make its results again$"
    ):
        write_report(out)
    assert (out / "report.html").read_text() == "old"


def test_a_sidecar_that_was_changed_is_named(folder, tmp_path):
    """It may hold anything: what that leads to is no error of the report."""
    out = shutil.copytree(folder, tmp_path / "out")
    path = out / "sub-07_T1w_seg-few_regions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Settings": 3}))
    for read in (write_report, shown_in):
        with pytest.raises(GlasError, match=rf"must be as they were written, in {out} these are not: {path.name} \("):
            read(out)


def test_the_result_of_a_mode_comes_before_what_it_was_made_of(explained, tmp_path):
    scaled = {**explained.provenance["Settings"], "scales": [0.5, 1.0]}
    for stem, settings in (("a_scale1", explained.provenance["Settings"]), ("b_scales", scaled)):
        made = replace(explained, stem=stem, provenance={**explained.provenance, "Settings": settings})
        made.save(tmp_path)
    titles = re.findall(r"<h2 id=\"result-\d-title\">([^<]*)", write_report(tmp_path).read_text(encoding="utf-8"))
    assert titles == ["sub-07_T1w, b_scales", "sub-07_T1w, a_scale1"]


def test_a_warning_of_all_results_is_given_once(explained, tmp_path):
    notes = {"a": ["it is flat: all are 0"], "b": ["it is flat: all are 0", "it is odd: 1"]}
    for stem, own in notes.items():
        replace(explained, stem=stem, provenance={**explained.provenance, "Notes": own}).save(tmp_path)
    first = page(write_report(tmp_path)).text.partition("Summary")[0]
    assert first.count("It is flat: all are 0.") == 2  # on top, and with the first result
    assert "sub-07_T1w, b: It is odd: 1." in first
