from .ablation import FeatureAblation as FeatureAblation
from .ablation import GaussianOcclusion as GaussianOcclusion
from .ablation import KernelShap as KernelShap
from .ablation import Lime as Lime
from .ablation import Occlusion as Occlusion
from .ablation import ShapleySampling as ShapleySampling
from .controls import Difference as Difference
from .controls import Edges as Edges
from .controls import Random as Random
from .gradients import Deconvolution as Deconvolution
from .gradients import GradCam as GradCam
from .gradients import Gradient as Gradient
from .gradients import GuidedBackprop as GuidedBackprop
from .gradients import InputXGradient as InputXGradient
from .gradients import IntegratedGradients as IntegratedGradients
from .gradients import SmoothGrad as SmoothGrad
from .light_and_shadow import Glas as Glas
from .mask import Mask as Mask
from .methods import METHODS as METHODS
from .methods import Method as Method
from .rise import Rise as Rise
from .rival import Rival as Rival
from .rival import Task as Task
from .value import ExplainedValue as ExplainedValue

__all__: list[str]
