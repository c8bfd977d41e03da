from .annotated import AnnotatedImage as AnnotatedImage
from .annotated import AnnotatedImages as AnnotatedImages
from .layouts import read_layout as read_layout
from .options import LocalisationOptions as LocalisationOptions
from .tables import Localisation as Localisation
from .tables import localise as localise

__all__: list[str]
