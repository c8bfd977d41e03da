from .adapters.callables import Retrying as Retrying
from .adapters.callables import from_callable as from_callable
from .adapters.estimators import from_decoder as from_decoder
from .adapters.estimators import from_estimator as from_estimator
from .adapters.onnx_file import from_onnx as from_onnx
from .adapters.pt2 import from_pt2 as from_pt2
from .bundle import BundleDescription as BundleDescription
from .bundle import write_bundle as write_bundle
from .captioner import Captioner as Captioner
from .conversion import convert_weights as convert_weights
from .engine.clock import use_clock as use_clock
from .engine.memory import keep_memory as keep_memory
from .intensity import Standardisation as Standardisation
from .intensity import intensity_scale as intensity_scale
from .interface import ModelInfo as ModelInfo
from .loading import load_model as load_model
from .network_training import train as train
from .networks import Autoencoder as Autoencoder
from .networks import PaperNet as PaperNet
from .predictor import Predictor as Predictor
from .readout import FirstOutput as FirstOutput
from .readout import RegionMean as RegionMean
from .recipe import Recipe as Recipe

__all__: list[str]
