"""``--config FILE``: options of a study from a TOML file; options of the command line come first."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App, ArgumentCollection


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the options of the file that ``--config`` names, where the command line does not give them."""
    from cyclopts.config import Dict

    from glas3d.study.config import read_config

    files = [token.value for argument in arguments if argument.name == "--config" for token in argument.tokens]
    if not files:
        return
    known = {
        name.removeprefix("--").replace("-", "_")
        for argument in arguments
        for name in argument.names
        if name.startswith("--")
    }
    options = read_config(Path(files[-1]), known - {"config"})
    dashed = {name.replace("_", "-"): value for name, value in options.items()}
    Dict(dashed, use_commands_as_keys=False, source=files[-1])(app, commands, arguments)
