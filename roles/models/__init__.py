"""What a model is to a planner, and a catalogue of known ones: pure code only."""

from roles.models.catalog import catalog_config as catalog_config
from roles.models.catalog import find as find
from roles.models.catalog import variants as variants
from roles.models.config import parse_config as parse_config
from roles.models.config import states_length as states_length
from roles.models.gguf_shape import GgufLayers as GgufLayers
from roles.models.gguf_shape import GgufShape as GgufShape
from roles.models.kv_cache import KvCapacity as KvCapacity
from roles.models.kv_cache import kv_tokens as kv_tokens
from roles.models.kv_groups import CacheOptions as CacheOptions
from roles.models.kv_groups import token_bytes as token_bytes
from roles.models.model import Attention as Attention
from roles.models.model import Experts as Experts
from roles.models.model import Layer as Layer
from roles.models.model import Model as Model
from roles.models.model import Recurrent as Recurrent
from roles.models.model import Weight as Weight
from roles.models.settings import Bytes as Bytes
from roles.models.settings import Count as Count
from roles.models.settings import DeclaredModel as DeclaredModel
from roles.models.settings import declared_model as declared_model
from roles.models.settings import model_of_file as model_of_file
from roles.models.valid_shapes import shape_problems as shape_problems
from roles.models.weights import pipeline_layers as pipeline_layers
from roles.models.weights import weight_bytes as weight_bytes
from roles.models.weights import weights_per_gpu as weights_per_gpu
