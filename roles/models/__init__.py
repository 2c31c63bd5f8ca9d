"""What a model is to a planner, and a catalogue of known ones: pure code only."""

from roles.models.catalog import find as find
from roles.models.model import Bytes as Bytes
from roles.models.model import Count as Count
from roles.models.model import Model as Model
