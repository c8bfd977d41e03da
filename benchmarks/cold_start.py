"""A cold start: the processor's time of ``glas3d explain`` of one scan beside torch's import and model evaluations.

``python -m benchmarks.cold_start explain SCAN ...`` runs such a command, and prints last how its time was spent.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def time_command(arguments: list[str]) -> dict[str, Any]:
    """Run a command and return the seconds of the processor, of all threads, that its parts took."""
    start = time.process_time()
    import torch

    imported = time.process_time() - start
    assert torch.__version__
    from glas3d.cli import run
    from glas3d.predict.predictor import Predictor

    evaluate, inputs, evaluated = Predictor.evaluate, 0, 0.0

    def timed_evaluate(self: Predictor, forward: Callable[[], Any], batch: Any) -> torch.Tensor:
        nonlocal inputs, evaluated
        begin = time.process_time()
        output = evaluate(self, forward, batch)
        inputs, evaluated = inputs + len(batch), evaluated + time.process_time() - begin
        return output

    Predictor.evaluate = timed_evaluate  # type: ignore[method-assign]
    status = run(arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    total = usage.ru_utime + usage.ru_stime
    rest = total - imported - evaluated
    return {"status": status, "torch": imported, "evaluations": evaluated, "rest": rest, "inputs": inputs}


if __name__ == "__main__":
    spent = time_command(sys.argv[1:])
    print(json.dumps(spent))
    sys.exit(spent["status"])
