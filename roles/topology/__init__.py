"""The planner: which replicas run on which GPUs, and why."""

from roles.topology.auto import decided as decided
from roles.topology.clusters import not_deployed_yet as not_deployed_yet
from roles.topology.explain import explain as explain
from roles.topology.explain import explain_host as explain_host
from roles.topology.planner import plan_fleet as plan_fleet
from roles.topology.planner import plan_host as plan_host
from roles.topology.planner import plan_services as plan_services
from roles.topology.settings import GroupSettings as GroupSettings
from roles.topology.settings import ServiceSettings as ServiceSettings
from roles.topology.speculative import SpeculativeSettings as SpeculativeSettings
