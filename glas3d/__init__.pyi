from .core.explanation import Explanation as Explanation
from .core.glas import GLAS as GLAS
from .core.rglas import RGLAS as RGLAS
from .core.search import Grid as Grid
from .core.search import Segments as Segments
from .errors import GlasError as GlasError
from .errors import GlasWarning as GlasWarning
from .explain import explain_image as explain_image
from .explain import explain_img as explain_img
from .imaging.atlas import Atlas as Atlas
from .predict.loading import load_model as load_model
from .predict.predictor import Predictor as Predictor

__version__: str
__all__: list[str]
