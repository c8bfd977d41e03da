"""Change over sessions at the group level."""

import json

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.one_group import mean_test
from glas3d.statistics.two_groups import compare
from glas3d.study.group.level import summarise_groups
from tests.study.made_up import FEW, read

pytestmark = pytest.mark.filterwarnings("ignore:the signs of 4 participants", "ignore:shares of saliency")
NAMES = [f"sub-{i:02d}" for i in range(1, 13)]


def sessions(study, groups=("AD", "NC"), counts=(2, 3)):
    """Fill a study with sessions whose left amygdala rises in AD; return the table of sessions and the true slopes."""
    rows, slopes = [], {}
    rng = np.random.default_rng(3)
    for i, name in enumerate(NAMES):
        group = groups[i % len(groups)]
        slope, start = rng.normal(0.4 * (group == "AD"), 0.1), rng.uniform(1, 2)
        slopes[name] = slope
        for k in range(counts[i % len(counts)]):
            years = k * 1.5 + 0.1 * i
            rows.append(
                {"participant_id": name, "session": f"ses-{k}", "group": group, "years": years, "age": 70.0 + i + years}
            )
            scores = {"Amygdala_L": start + slope * years}
            study.add(name, f"ses-{k}", seed=100 * i + k, p=0.6, scores=scores)
    return pd.DataFrame(rows), pd.Series(slopes)


def participants(table):
    return table.groupby("participant_id", as_index=False).agg({"group": "first", "age": "mean"})


def test_slopes_are_tested_in_each_group_and_compared(study):
    table, true = sessions(study)
    result = summarise_groups(study.out, table, **FEW, slope_over="years", normalise="none", covariates=["age"])
    design = participants(table)
    one = read(result.folder, "group-AD_seg-few_desc-slope_regions.tsv").set_index("name")
    expected = mean_test(true[design["group"].eq("AD").to_numpy()].to_frame(), n_perm=49).iloc[0]
    assert one.loc["Amygdala_L", "mean"] == pytest.approx(expected["mean"], abs=1e-9)
    assert one.loc["Amygdala_L", "t"] == pytest.approx(expected["t"], rel=1e-6)
    both = read(result.folder, "group-ADvsNC_seg-few_desc-slope_statistics.tsv").set_index("name")
    expected = compare(true.to_frame("x"), design, "AD", "NC", covariates=["age"], n_perm=49, n_boot=0).iloc[0]
    for column in ("t", "difference", "adjusted_difference", "dof", "n_case"):
        assert both.loc["Amygdala_L", column] == pytest.approx(expected[column], rel=1e-6)
    assert both.loc["Amygdala_L", "p_fwe"] <= 0.05
    assert set(result.tests) >= {"slope over years in AD", "slope over years in NC", "slope over years, AD against NC"}
    sidecar = json.loads((result.folder / "group-ADvsNC_seg-few_desc-slope_statistics.json").read_text())
    assert sidecar["SlopeOver"] == "years"
    assert sidecar["Sessions"]["sub-02"] == ["ses-0", "ses-1", "ses-2"]
    assert sidecar["mean_case"]["Description"] == "mean of the slopes"
    assert sidecar["Description"].startswith("Slopes of scores over years, AD against NC")
    assert sidecar["NullHypothesis"].startswith("the adjusted means of the two groups are equal")
    assert sidecar["Exchangeable"] == "the signs or the residuals of a group"
    assert (result.folder / "group-ADvsNC_seg-few_desc-slope_stat-t_statmap.nii.gz").is_file()
    sidecar = json.loads((result.folder / "group-AD_seg-few_desc-slope_regions.json").read_text())
    assert (sidecar["DegreesOfFreedom"], sidecar["Statistic"]) == (5, "Student's t of the mean slope")
    unchanged = read(result.folder, "group-ADvsNC_seg-few_statistics.tsv")
    assert unchanged["mean_case"].tolist() != both["mean_case"].tolist()


def test_dates_become_years_and_three_groups_are_tested_together(study):
    table, true = sessions(study, ("AD", "MCI", "NC"), (2,))
    days = (table["years"] * 365.25).round(6)
    table["acq_time"] = (pd.Timestamp("2015-02-03T12:00:00") + pd.to_timedelta(days, unit="D")).dt.strftime(
        "%Y-%m-%dT%H:%M:%S.%f"
    )
    table = table.drop(columns="years")
    result = summarise_groups(study.out, table, **FEW, slope_over="acq_time", normalise="none", omnibus=True)
    found = result.tests["slope over acq_time, AD against MCI against NC"].set_index("name")
    expected = compare_all(true.to_frame("x"), participants(table), ["AD", "MCI", "NC"], n_perm=49).iloc[0]
    assert found.loc["Amygdala_L", "f"] == pytest.approx(expected["f"], rel=1e-5)
    sidecar = json.loads((result.folder / "group-AD_seg-few_desc-slope_regions.json").read_text())
    assert sidecar["Unit"] == "score of the participants' tables, per year"
    assert "p_fwe_pairs" in result.tests["slope over acq_time, AD against NC"]


def test_participants_with_one_session_are_left_out_of_slopes_only(study):
    table, _ = sessions(study, counts=(2, 2, 2, 2, 2, 1))
    with pytest.warns(GlasWarning, match="left out of the slopes: sub-06, sub-12"):
        result = summarise_groups(study.out, table, **FEW, slope_over="years")
    assert set(result.tests["slope over years, AD against NC"]["n_control"]) == {4}
    assert set(result.statistics["n_control"]) == {6}


def gaps(table):
    return table.assign(years=table["years"].where(table.index != 0))


CHANGES = {
    "column": (lambda t: t.drop(columns="years"), "participants need a column years"),
    "gap": (gaps, "every session needs a value of years, these have none: sub-01 ses-0"),
    "text": (lambda t: t.assign(years="early"), "must be numbers, or dates such as 2019-05-31, years has 'early'"),
    "constant": (lambda t: t.assign(years=1.0), "needs two sessions at different times, nobody has them"),
    "few": (
        lambda t: t.assign(years=t["years"].where((t["group"] == "AD") | (t["participant_id"] == "sub-02"), 1.0)),
        "at least 2 participants a group, NC has 1",
    ),
}


@pytest.mark.filterwarnings("ignore:without two sessions")
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_slopes_that_cannot_be_had_are_refused_before_any_work(study, change, message):
    table, _ = sessions(study)
    with pytest.raises(GlasError, match=message):
        summarise_groups(study.out, change(table), **FEW, slope_over="years")
    assert not (study.out / "group").exists()


def test_sessions_without_a_time_may_be_left_out(study):
    table, _ = sessions(study, counts=(3,))
    with pytest.warns(GlasWarning, match="without years, and left out of the slopes: sub-01 ses-0"):
        result = summarise_groups(study.out, gaps(table), **FEW, slope_over="years", on_missing="skip")
    sidecar = json.loads((result.folder / "group-AD_seg-few_desc-slope_regions.json").read_text())
    assert sidecar["Sessions"]["sub-01"] == ["ses-1", "ses-2"]


def test_results_without_sessions_have_no_slopes(study):
    for i, name in enumerate(NAMES):
        study.add(name, seed=i)
    table = pd.DataFrame({"participant_id": NAMES, "group": ["AD", "NC"] * 6, "years": np.arange(12.0)})
    with pytest.raises(GlasError, match="slopes over years need sessions"):
        summarise_groups(study.out, table, **FEW, slope_over="years")
