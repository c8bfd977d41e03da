from .cohort.bids import read_cohort as read_cohort
from .cohort.cohort import Cohort as Cohort
from .cohort.options import Selection as Selection
from .derivatives import read_records as read_records
from .group.group_map import GroupMap as GroupMap
from .group.level import GroupResult as GroupResult
from .group.level import summarise_groups as summarise_groups
from .group.options import GroupOptions as GroupOptions
from .oasis.dataset import OasisDataset as OasisDataset
from .oasis.dataset import fetch_oasis as fetch_oasis
from .oasis.dataset import oasis_terms as oasis_terms
from .oasis.options import OasisOptions as OasisOptions
from .relabelling import relabel_cohort as relabel_cohort
from .running.options import StudyOptions as StudyOptions
from .running.runner import CohortResult as CohortResult
from .running.runner import explain_cohort as explain_cohort
from .training.crossvalidation import CrossValidation as CrossValidation
from .training.crossvalidation import train_folds as train_folds
from .training.manifest import FoldManifest as FoldManifest
from .training.manifest import Manifest as Manifest
from .training.options import TrainingOptions as TrainingOptions

__all__: list[str]
