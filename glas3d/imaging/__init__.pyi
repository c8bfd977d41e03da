from .atlas import Atlas as Atlas
from .coordinates import Coordinates as Coordinates
from .mask import bright_voxels as bright_voxels
from .mask import mask_on as mask_on
from .picture import Picture as Picture
from .picture import load_picture as load_picture
from .registration import register as register
from .registration import template_brain as template_brain
from .registration import template_brain_in_native as template_brain_in_native
from .registration import without_skull as without_skull
from .scan import Scan as Scan
from .scan import load_scan as load_scan
from .slic import superpixels as superpixels
from .slic import supervoxels as supervoxels
from .space import SpaceCheck as SpaceCheck
from .space import VoxelGrid as VoxelGrid
from .space import check_space as check_space
from .space import grid_of as grid_of
from .space import mni_grid as mni_grid
from .space import resample as resample
from .space import resample_scan as resample_scan
from .space import template as template
from .spatial_transform import SpatialTransform as SpatialTransform
from .spatial_transform import load_transform as load_transform

__all__: list[str]
