"""The planner: which replicas run on which GPUs, and why."""

from roles.topology.auto import decided as decided
from roles.topology.auto import rivals as rivals
from roles.topology.clusters import not_deployed_yet as not_deployed_yet
from roles.topology.engines import Chosen as Chosen
from roles.topology.explain import explain as explain
from roles.topology.explain import explain_host as explain_host
from roles.topology.host_planner import plan_host as plan_host
from roles.topology.planner import plan_fleet as plan_fleet
from roles.topology.planner import plan_services as plan_services
from roles.topology.service_fields import GroupSettings as GroupSettings
from roles.topology.settings import ServiceSettings as ServiceSettings
from roles.topology.speculative import SpeculativeSettings as SpeculativeSettings
