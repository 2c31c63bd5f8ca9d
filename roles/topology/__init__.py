"""Which replicas on which GPUs, and why: (models, hardware, service) in, plan out."""

from roles.topology.clusters import cluster_words as cluster_words
from roles.topology.explain import explain as explain
from roles.topology.explain import explain_host as explain_host
from roles.topology.plan import HostPlan as HostPlan
from roles.topology.plan import MemorySum as MemorySum
from roles.topology.plan import Plan as Plan
from roles.topology.plan import Replica as Replica
from roles.topology.plan import Shape as Shape
from roles.topology.plan import with_p2p_of as with_p2p_of
from roles.topology.planner import plan_fleet as plan_fleet
from roles.topology.planner import plan_host as plan_host
from roles.topology.planner import plan_services as plan_services
from roles.topology.saved import plan_differences as plan_differences
from roles.topology.saved import saved as saved
from roles.topology.settings import ServiceSettings as ServiceSettings
