"""No file of predict imports, at once, within a function or for type checking, a file that imports it back."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import glas3d

ROOT = Path(glas3d.__file__).parent


def module_of(path):
    """The dotted name of a file below the package."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path, modules):
    """The modules that a file imports anywhere in its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in modules else node.module


def test_files_of_predict_import_no_file_that_imports_them_back():
    files = {module_of(path): path for path in (ROOT / "predict").rglob("*.py")}
    graph = {module: {name for name in imports_of(path, files) if name in files} for module, path in files.items()}
    assert graph["glas3d.predict.predictor"] >= {"glas3d.predict.interface", "glas3d.predict.device"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_importing_the_package_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys, glas3d.predict; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_imported():
    import glas3d.predict

    names = set(glas3d.predict.__all__)
    assert {"Predictor", "load_model", "from_estimator", "from_onnx", "from_pt2", "FirstOutput", "RegionMean"} <= names
    assert set(dir(glas3d.predict)) == names
    assert all(getattr(glas3d.predict, name).__name__ == name for name in names)


def test_the_shipped_model_is_read_without_monai():
    """Its configuration needs no parser, and MONAI takes a second to import."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom glas3d import load_model\nload_model('adnc-simulated')\n"
        "sys.exit(bool({'monai', 'nilearn.image'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_entries_that_are_no_arguments_are_those_of_monai():
    from monai.bundle.config_item import ConfigComponent

    from glas3d.predict.bundle_entries import NOT_ARGUMENTS

    assert set(ConfigComponent.non_arg_keys) == NOT_ARGUMENTS
