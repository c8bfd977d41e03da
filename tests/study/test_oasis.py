"""OASIS-1 becomes a BIDS derivative, from a folder as nilearn leaves it."""

import json
import socket

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import check_space
from glas3d.study import fetch_oasis, oasis_terms, read_cohort
from glas3d.study.oasis.dataset import map_path
from tests.study.oasis_layout import AGREEMENT, GRID, layout
from tests.validator import validate

N = 10


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return layout(tmp_path_factory.mktemp("nilearn"), N)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Let every connection fail, as on a machine without the internet."""

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def fetched(data_dir, tmp_path):
    return fetch_oasis(tmp_path / "OASIS", agree=True, data_dir=data_dir, participants=N)


def edited(folder, change):
    """Change the table of OASIS in a folder, and return the folder."""
    path = folder / "oasis1" / "oasis_cross-sectional.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    return folder


def test_the_terms_are_known_without_a_download():
    terms = oasis_terms()
    assert "Data Usage Agreement" in terms
    assert "https://sites.wustl.edu/oasisbrains/" in terms


@pytest.mark.parametrize("options", [{}, {"agree": False}])
def test_nothing_is_downloaded_without_agreement(tmp_path, monkeypatch, options):
    monkeypatch.setattr("nilearn.datasets.fetch_oasis_vbm", lambda **_: pytest.fail("downloads"))
    with pytest.raises(GlasError, match=r"agree with its data use agreement, https://.*--agree"):
        fetch_oasis(tmp_path / "OASIS", **options)
    assert not list(tmp_path.iterdir())


def test_groups_are_those_of_cdr_and_age(fetched):
    table = pd.read_csv(fetched.folder / "participants.tsv", sep="\t")
    assert table["group"].tolist() == ["AD", "NC", "AD", "NC", "younger"] * 2
    assert table["cdr"].fillna(-1).tolist() == [0.5, 0, 1, 0, -1] * 2
    assert (table.loc[table["group"] != "younger", "age"] >= 60).all()
    assert (table.loc[table["group"] == "younger", "age"] < 60).all()
    assert table["participant_id"].tolist()[:2] == ["sub-OAS10001", "sub-OAS10002"]
    assert table["etiv"].tolist()[:2] == [1501, 1502]  # of the first visit, whose map it is
    assert table["sex"].tolist() == ["F", "M"] * 5
    described = json.loads((fetched.folder / "participants.json").read_text())
    assert set(described) == set(table)
    assert set(described["group"]["Levels"]) == set(table["group"])
    assert fetched.left_out == 0


def test_the_summary_holds_the_ages_of_the_groups(fetched):
    table, summary = fetched.participants, fetched.summary.set_index("group")
    assert summary["n"].to_dict() == {"AD": 4, "NC": 4, "younger": 2}
    for group, row in summary.iterrows():
        ages = table["age"][table["group"] == group]
        assert (row["age"], row["youngest"], row["oldest"]) == (ages.mean(), ages.min(), ages.max())
        assert row["age_sd"] == pytest.approx(np.std(ages, ddof=1))
        assert row["women"] == ((table["group"] == group) & (table["sex"] == "F")).sum()


def test_maps_are_copies_byte_for_byte(fetched, data_dir):
    for participant_id in fetched.participants["participant_id"]:
        path = fetched.folder / map_path(participant_id)
        (source,) = data_dir.glob(f"oasis1/OAS1_{participant_id[-4:]}_MR1/mwrc1*")
        assert path.read_bytes() == source.read_bytes()
        assert not path.is_symlink()
    assert (fetched.folder / "LICENSE").read_text() == AGREEMENT


def test_the_official_validator_accepts_it(fetched):
    errors, summary = validate(fetched.folder)
    assert errors == []
    assert len(summary["subjects"]) == N


def test_a_cohort_reads_it_and_the_maps_are_brains_in_mni_space(fetched):
    cohort = read_cohort(fetched.folder, suffix="probseg", entities="label=GM", covariates=["age", "sex", "etiv"])
    assert cohort.groups == {"AD": 4, "NC": 4, "younger": 2}
    for path in cohort.table["path"]:
        scan = load_scan(path)
        assert scan.shape == GRID.shape
        assert check_space(scan).problem is None


def test_who_belongs_to_no_group_is_left_out(tmp_path):
    def change(table):
        table.loc[table["ID"] == "OAS1_0001_MR1", "CDR"] = np.nan  # old, not rated
        table.loc[table["ID"] == "OAS1_0005_MR1", "CDR"] = 0.5  # young, demented
        return table

    folder = edited(layout(tmp_path / "nilearn", N), change)
    fetched = fetch_oasis(tmp_path / "OASIS", agree=True, data_dir=folder, participants=N)
    assert fetched.left_out == 2
    assert not {"sub-OAS10001", "sub-OAS10005"} & set(fetched.participants["participant_id"])
    assert len(list(fetched.folder.glob("sub-*"))) == N - 2


def test_the_least_age_moves_the_groups(data_dir, tmp_path):
    ages = pd.read_csv(data_dir / "oasis1" / "oasis_cross-sectional.csv").query("CDR >= 0 and Delay.isna()")["Age"]
    least = int(ages.median())
    fetched = fetch_oasis(tmp_path / "OASIS", agree=True, data_dir=data_dir, participants=N, least_age=least)
    rated = fetched.participants[fetched.participants["cdr"].notna() & (fetched.participants["group"] != "younger")]
    assert len(rated) == (ages >= least).sum()


REFUSED = {
    "nothing downloaded": (lambda folder: folder / "empty", {}, "cannot be had from .*nitrc.* needs the internet"),
    "no column": (
        lambda folder: edited(folder, lambda table: table.drop(columns="CDR")),
        {},
        "must have the columns age, cdr, .*, it lacks cdr",
    ),
    "no row": (
        lambda folder: edited(folder, lambda table: table[table["ID"] != "OAS1_0003_MR1"]),
        {},
        "must have a row for each map, it has none for OAS1_0003_MR1",
    ),
    "no control": (lambda folder: folder, {"least_age": 99}, "no participant of 99 years or more is of group AD"),
    "age": (lambda folder: folder, {"least_age": -1}, "least_age must be 0 or more years, got -1"),
    "number": (lambda folder: folder, {"participants": 0}, "participants must be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(tmp_path, name):
    prepare, options, message = REFUSED[name]
    folder = prepare(layout(tmp_path / "nilearn", N))
    with pytest.raises(GlasError, match=message) as caught:
        fetch_oasis(tmp_path / "OASIS", agree=True, data_dir=folder, **{"participants": N} | options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["nilearn"]
