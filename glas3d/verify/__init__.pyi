from .again import explain_again as explain_again
from .differences import Repetition as Repetition
from .files import VerifiedFiles as VerifiedFiles
from .files import verify_files as verify_files
from .scan_again import explain_scans_again as explain_scans_again

__all__: list[str]
