"""The official BIDS validator."""

import json
import subprocess
import sys
from pathlib import Path


def validate(place):
    """Its errors, and its summary."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([validator, place, "--format", "json"], capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    errors = [f"{i['code']} {i.get('location')}" for i in report["issues"]["issues"] if i["severity"] == "error"]
    assert (done.returncode == 0) is not bool(errors)
    return errors, report["summary"]
