from .group_map import GroupMap as GroupMap
from .group_sums import GroupInput as GroupInput
from .level import GroupResult as GroupResult
from .level import summarise_groups as summarise_groups
from .options import GroupOptions as GroupOptions
from .voxel_map import VoxelMap as VoxelMap
from .voxelwise import VoxelwiseResult as VoxelwiseResult

__all__: list[str]
