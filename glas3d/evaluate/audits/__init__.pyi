from .audit import Audit as Audit
from .audit import Number as Number
from .audit import save_audits as save_audits
from .auditing import audit_results as audit_results
from .auditing import audit_scan as audit_scan
from .auditing import audit_study as audit_study
from .checks import CHECKS as CHECKS
from .checks import AuditOptions as AuditOptions
from .checks import Check as Check

__all__: list[str]
