from .overlay import overlay_figure as overlay_figure
from .overlay import result_figure as result_figure
from .references import references_figure as references_figure
from .regions import regions_figure as regions_figure

__all__: list[str]
