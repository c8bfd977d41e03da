from .captum_methods import FeatureAblation as FeatureAblation
from .captum_methods import GradCam as GradCam
from .captum_methods import Lime as Lime
from .captum_methods import Occlusion as Occlusion
from .gaussian_occlusion import GaussianOcclusion as GaussianOcclusion
from .mask import Mask as Mask
from .mask import blurred as blurred
from .rise import Rise as Rise
from .rival import Rival as Rival

__all__: list[str]
