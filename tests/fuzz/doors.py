"""The doors through which users' files come in, each with the inputs that it is given and its share of them."""

import atexit
import contextlib
import io
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from glas3d import GLAS, GlasError, Grid, Predictor, cli, load_model
from glas3d.imaging.lookup_table import read_lookup_table
from glas3d.imaging.picture import load_picture
from glas3d.imaging.scan import load_scan
from glas3d.imaging.spatial_transform import load_transform
from glas3d.report.folder import shown_in
from glas3d.study import explain_cohort, summarise_groups
from glas3d.study.cohort.participants_tsv import read_participants
from glas3d.study.config import read_config
from glas3d.study.derivatives import read_records, read_study
from glas3d.verify import verify_files
from tests import bundles
from tests.fuzz import inputs
from tests.predict.adapters.test_exported import onnx_file
from tests.predict.cases import network
from tests.study import studies
from tests.time_limit import OutOfTime, time_limit

SHAPE = (3, 4, 5)
LONGEST = 60.0  # seconds after which an input counts as one that hangs


@dataclass(frozen=True)
class Door:
    """One way in: what is given to it, and what it does with that; ``share`` of 100 inputs are its own."""

    name: str
    share: int
    inputs: st.SearchStrategy[Any]
    enter: Callable[[Path, Any], object]


def file(folder, suffix, content):
    path = folder / f"input{suffix}"
    path.write_bytes(content)
    return path


def read_image(folder, image):
    with quiet(logging.getLogger("nibabel.global")):
        load_scan(file(folder, *image))


@contextlib.contextmanager
def quiet(logger):
    """Keep a logger from writing a line for each field that it mends."""
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def read_bundle(folder, given):
    """Read a tiny bundle whose configuration was changed; it is written once a folder."""
    bundle = folder / "bundle"
    if not bundle.exists():
        bundles.write(bundle)
        for path in (bundle / "configs").iterdir():
            path.with_name(f"{path.name}.kept").write_bytes(path.read_bytes())
    for path in (bundle / "configs").glob("*.kept"):
        path.with_suffix("").write_bytes(path.read_bytes())
    name, content = given
    (bundle / "configs" / name).write_bytes(content)
    load_model(str(bundle))


def original(name):
    """Return a configuration of the tiny bundle."""
    with tempfile.TemporaryDirectory() as folder:
        bundles.write(Path(folder) / "bundle")
        return json.loads((Path(folder) / "bundle" / "configs" / name).read_text(encoding="utf-8"))


def configurations(name):
    content = original(name)
    text = json.dumps(content).encode()
    trees = inputs.changed_json(content).map(lambda tree: json.dumps(tree).encode(errors="replace"))
    return st.tuples(st.just(name), st.one_of(trees, trees, trees, inputs.changed_bytes(text)))


def run_command(folder, arguments):
    """Run a command that cannot succeed, because its files do not exist: one line, status 2."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = cli.run(arguments)
    if status not in (0, 2) or "unexpected" in errors.getvalue():
        raise AssertionError(f"status {status}: {errors.getvalue()}")
    if status == 2:
        assert errors.getvalue().startswith(("error: ", "note: ", "warning: ")), errors.getvalue()
        raise GlasError(errors.getvalue())


def commands():
    """Generate command lines: a command, its options with values of any kind, and paths that do not exist."""
    lines = []
    for name in ("explain", "compare", "cohort", "train", "convert", "verify", "report", "figure", "audit", "localise"):
        options = sorted(
            option
            for argument in cli.app[name].assemble_argument_collection()
            for option in argument.names
            if option.startswith("--")
        )
        word = st.one_of(
            st.sampled_from(options), st.sampled_from(["/nonexistent/a.nii.gz", "participant"]), inputs.WORDS
        )
        lines.append(
            st.tuples(st.just([name, "/nonexistent/input"]), st.lists(word, max_size=6)).map(lambda p: p[0] + p[1])
        )
    return st.one_of(lines)


OUTPUTS = st.one_of(
    st.tuples(st.sampled_from([(2, 2), (2,), (2, 1), (1, 2), (2, 3), (0, 2), (2, 2, 1), ()]), inputs.NUMBERS),
    inputs.VALUES,
)


def evaluate(folder, given):
    """Explain a volume by a model that returns anything."""

    def model(batch):
        if not (isinstance(given, tuple) and len(given) == 2):
            return given
        shape, value = given
        filled = (
            torch.full(shape, float(value)) if abs(value) < 1e300 or value != value else torch.full(shape, torch.inf)
        )
        if filled.ndim and len(filled) == 2 and len(batch) != 2:
            filled = filled[:1].expand(len(batch), *filled.shape[1:])
        return filled + 0.1 * torch.rand(filled.shape)

    predict = Predictor(model, "softmax", device="cpu")
    GLAS(predict, sigma_light=1, sigma_shadow=1, batch_size=2).explain(torch.ones(1, *SHAPE), 1, Grid(1))


def load_exported(folder, given):
    """Read an exported model, and the tensors that it may keep in other files."""
    load_model(str(file(folder, *given)), activation="softmax", device="cpu")


@cache
def exported():
    """Return the files of a small network, exported for torch and as ONNX, and the weights of the tiny bundle."""
    net = network(2).eval()
    stored = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, 7, 9),)), stored)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file(path := Path(folder) / "net.onnx", net, (7, 9), 2)
        weights = bundles.write(Path(folder) / "bundle") / "models" / "model.safetensors"
        return stored.getvalue(), path.read_bytes(), weights.read_bytes()


def exported_models():
    archive, graph, _ = exported()
    changed = inputs.changed_bytes(graph, within=len(graph))
    return st.one_of(
        st.tuples(st.just(".pt2"), inputs.archives(archive)),
        st.tuples(st.just(".onnx"), changed | st.just(inputs.PICKLE)),
    )


def read_weights(folder, content):
    bundle = folder / "bundle"
    if not bundle.exists():
        bundles.write(bundle)
    (bundle / "models" / "model.safetensors").write_bytes(content)
    load_model(str(bundle))


@cache
def study():
    """Return the folder of a small study with its group level, which stays until Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="glas3d-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = studies.bids(folder / "data")
    cohort, out = studies.cohort(data), folder / "study"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explain_cohort(
            cohort,
            out,
            studies.folds(folder / "folds", cohort),
            search=studies.SEARCH,
            assume_space="MNI",
            engine="eager",
        )
        summarise_groups(out, cohort.everyone, case="AD", control="NC", n_perm=19, n_boot=20)
    return out


def results():
    out = study()
    kept = ("study.json", "hashes.json", "dataset_description.json")
    files = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".json", ".tsv") and (path.name in kept or "sub-001" in path.name or "group" in path.parts)
    }
    return inputs.results(files)


def read_results(folder, given):
    """Verify a study of which one file is another, read it as the group level does, and as figures and reports do."""
    out = folder / "study"
    if not out.exists():
        shutil.copytree(study(), out)
    name, content = given
    kept = (out / name).read_bytes()
    (out / name).write_bytes(content)
    refused = None
    try:
        for read in (verify_files, read_study, read_records, shown_in):
            try:
                read(out)
            except GlasError as error:
                refused = error
    finally:
        (out / name).write_bytes(kept)
    if refused is not None:
        raise refused


KNOWN = ("grid", "batch_size", "case", "n_perm", "n_boot", "covariates", "sigma_light")
LABELS = ("index", "name", "hemisphere")
PEOPLE = ("participant_id", "group", "age", "session_id")


def doors():
    """Return all doors; their shares add up to 100."""
    return [
        Door("images", 28, inputs.images(), read_image),
        Door(
            "tables of participants",
            11,
            inputs.tables(PEOPLE),
            lambda folder, text: read_participants(file(folder, ".tsv", text), covariates=("age",)),
        ),
        Door(
            "look-up tables",
            11,
            inputs.tables(LABELS),
            lambda folder, text: read_lookup_table(file(folder, ".tsv", text), (1, 2)),
        ),
        Door("configurations", 19, inputs.configurations, lambda f, text: read_config(file(f, ".toml", text), KNOWN)),
        Door("transforms", 3, inputs.transforms, lambda folder, given: load_transform(file(folder, *given))),
        Door("bundles", 5, st.one_of(*map(configurations, ("metadata.json", "inference.json"))), read_bundle),
        Door("outputs of models", 5, OUTPUTS, evaluate),
        Door("command lines", 3, commands(), run_command),
        Door("pictures", 8, inputs.pictures(), lambda folder, given: load_picture(file(folder, *given))),
        Door("exported models", 3, st.deferred(exported_models), load_exported),
        Door("weights", 3, st.deferred(lambda: inputs.safetensors(exported()[2])), read_weights),
        Door("results", 1, st.deferred(results), read_results),
    ]


def enter(door: Door, folder: Path, given: Any, counts: Counter, longest: float = LONGEST) -> None:
    """Give an input to a door: it must succeed or be refused by a `GlasError`, whatever else it raises is a fault.

    It counts as hanging if it takes longer than so many seconds, and as executed if code in it was run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tests make errors of them
        try:
            with time_limit(longest):
                door.enter(folder, given)
        except GlasError as error:
            counts["refused" if str(error).strip() else "refused without a sentence"] += 1
        except OutOfTime:
            counts["hangs"] += 1
            print(f"{door.name} takes longer than {longest:g} s: {given!r:.2000}", file=sys.stderr)
        else:
            counts["accepted"] += 1
    if inputs.CANARY.exists():
        inputs.CANARY.unlink()
        counts["executed"] += 1
        print(f"{door.name} ran code: {given!r:.2000}", file=sys.stderr)
