"""Audits: should a map be believed? Each is one page of numbers with a plain verdict.

`audit_scan` audits a model on one scan, `audit_study` a study and `audit_results` the maps of scans in a folder, by any
of the checks that `CHECKS` lists.
To add one, write a function that returns an `Audit` in a file of its own, and enter it in ``checks.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
