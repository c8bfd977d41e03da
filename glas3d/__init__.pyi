from glas3d.core.explanation import Explanation as Explanation
from glas3d.core.glas import GLAS as GLAS
from glas3d.core.rglas import RGLAS as RGLAS
from glas3d.core.search import Grid as Grid
from glas3d.core.search import Segments as Segments
from glas3d.errors import GlasError as GlasError
from glas3d.errors import GlasWarning as GlasWarning
from glas3d.explain import explain_image as explain_image
from glas3d.explain import explain_img as explain_img
from glas3d.imaging.atlas import Atlas as Atlas
from glas3d.predict.bundle import load_model as load_model
from glas3d.predict.predictor import Predictor as Predictor

__version__: str
__all__: list[str]
