from .again import Repetition as Repetition
from .again import explain_again as explain_again
from .files import VerifiedFiles as VerifiedFiles
from .files import verify_files as verify_files

__all__: list[str]
