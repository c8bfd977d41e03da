from .charts import bars_figure as bars_figure
from .charts import light_shadow_figure as light_shadow_figure
from .kinds import figure_kinds as figure_kinds
from .maps import BrainMap as BrainMap
from .maps import glass_figure as glass_figure
from .maps import mosaic_figure as mosaic_figure
from .maps import surface_figure as surface_figure
from .overlay import overlay_figure as overlay_figure
from .overlay import result_figure as result_figure
from .plotting import plot as plot
from .references import references_figure as references_figure
from .regions import regions_figure as regions_figure
from .viewing import view as view
from .webpage.writing import write_report as write_report

__all__: list[str]
