import pytest

from glas3d import GlasError
from glas3d.study.config import read_config

KNOWN = ("space", "group_column", "entities", "folds", "sigma")


def config(path, text):
    path.write_text(text)
    return path


def test_options_may_be_grouped_in_tables(tmp_path):
    path = config(
        tmp_path / "study.toml",
        'space = "MNI"\n[input]\ngroup-column = "dx"\n[input.entities]\nlabel = "GM"\n'
        "[train]\nfolds = 3\nsigma = [1.5, 3]\n",
    )
    assert read_config(path, KNOWN) == {
        "space": "MNI",
        "group_column": "dx",
        "entities": {"label": "GM"},
        "folds": 3,
        "sigma": [1.5, 3],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fold = 3\nspce = 1\nqwertz = 1\n",
            r"unknown options: fold \(did you mean folds\?\), spce \(did you .* space\?\), qwertz",
        ),
        ("[train]\nqwertz = 3\n", "unknown options: qwertz"),
        ("folds = 3\n[train]\nfolds = 4\n", "gives folds twice"),
        ("folds = \n", "must be TOML, .*study.toml is not"),
    ],
)
def test_unusable_options_are_named(tmp_path, text, message):
    with pytest.raises(GlasError, match=message):
        read_config(config(tmp_path / "study.toml", text), KNOWN)


def test_files_that_are_no_toml_are_refused(tmp_path):
    with pytest.raises(GlasError, match="no such file"):
        read_config(tmp_path / "no.toml", KNOWN)
    with pytest.raises(GlasError, match=r"a configuration must be a file that you may read, .* is a directory"):
        read_config(tmp_path, KNOWN)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(GlasError, match="must be TOML"):
        read_config(tmp_path / "x.toml", KNOWN)
