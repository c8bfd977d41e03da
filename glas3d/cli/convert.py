"""``glas3d convert``: the weights of a PyTorch checkpoint for a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import in_group
from glas3d.cli.messages import Messages

convert = App(name="convert", usage="Usage: glas3d convert WEIGHTS BUNDLE_DIR [OPTIONS]")


@convert.default
def convert_checkpoint(
    weights: Path,
    bundle_dir: Path,
    /,
    *,
    trust: Annotated[bool, in_group("Model")] = False,
    overwrite: Annotated[bool, in_group("Output")] = False,
    json: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Give a MONAI bundle, such as one of MONAI's model zoo, its weights as safetensors, which hold no code.

    The checkpoint is read with torch.load(weights_only=True), and its weights must be those of the network that the
    bundle describes.

    Parameters
    ----------
    weights
        A .pt or .pth file of torch.save with a state dict, such as BUNDLE_DIR/models/model.pt.
    bundle_dir
        The bundle: a folder with configs/metadata.json and configs/inference.json. A new folder becomes a copy of the
        bundle that WEIGHTS lies in.
    trust
        Allow the configuration of a bundle to run any code of its author: calls of functions, expressions and imports.
        Without it a bundle may be made of networks and layers of torch.nn, monai.networks and glas3d.
    overwrite
        Replace weights that the bundle has already. Default: refuse.
    json
        Write what was written to standard output as JSON, for other programs.
    """
    from glas3d.predict import convert_weights

    converted = convert_weights(weights, bundle_dir, overwrite=overwrite, trust=trust)
    if json:
        terminal.write_json(vars(converted))
        return
    terminal.write(f"Written to {converted.file}: {converted.n_tensors} tensors of {converted.n_values:,} values")
