from .birds import BIRD_PARTS as BIRD_PARTS
from .birds import draw_bird as draw_bird
from .birds import write_birds as write_birds
from .dataset import scan_img as scan_img
from .dataset import scan_path as scan_path
from .dataset import write_dataset as write_dataset
from .participants import SimulatedParticipant as SimulatedParticipant
from .participants import participant as participant
from .participants import planted_labels as planted_labels
from .participants import simulate_participant as simulate_participant
from .participants import simulate_participants as simulate_participants
from .simulation import GROUPS as GROUPS
from .simulation import PLANTED as PLANTED
from .simulation import Simulation as Simulation
from .targets import RegionTargets as RegionTargets
from .targets import region_targets as region_targets
from .twins import Twin as Twin
from .twins import twins as twins

__all__: list[str]
