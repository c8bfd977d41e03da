"""What `glas3d.study` and `glas3d.simulate` export, and how little importing them and their options loads."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

from glas3d import simulate, study
from glas3d.options import documentation
from glas3d.simulate import Simulation
from glas3d.study import Selection, TrainingOptions, read_cohort, train_folds

LIGHT = (
    "import sys\n"
    "import glas3d.study, glas3d.simulate\n"
    "from glas3d.simulate import Simulation\n"
    "from glas3d.study import Selection, TrainingOptions\n"
    "Simulation, Selection(), TrainingOptions()\n"
    "print(*({'torch', 'pandas', 'nilearn', 'nibabel', 'scipy'} & set(sys.modules)))\n"
)


@pytest.mark.parametrize("room", [study, simulate])
def test_every_exported_name_can_be_imported(room):
    assert len(room.__all__) > 9
    for name in room.__all__:
        assert getattr(room, name) is not None
        assert name in dir(room)


def test_options_load_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("declaration", [Selection, TrainingOptions, Simulation])
def test_every_option_is_documented_with_its_default(declaration):
    texts = documentation(declaration)
    for field in fields(declaration):
        assert "Default: " in texts[field.name], field.name


@pytest.mark.parametrize(("function", "declaration"), [(read_cohort, Selection), (train_folds, TrainingOptions)])
def test_functions_take_the_options(function, declaration):
    parameters = inspect.signature(function).parameters
    for field in fields(declaration):
        assert parameters[field.name].default == field.default
        assert f"{field.name}\n" in inspect.getdoc(function)
