"""The frozen types of the plan, and its saved form."""

from roles.plan.difference import ReplicaChange as ReplicaChange
from roles.plan.difference import entry_changes as entry_changes
from roles.plan.difference import grouped as grouped
from roles.plan.difference import placed as placed
from roles.plan.estimate import Bound as Bound
from roles.plan.estimate import Estimate as Estimate
from roles.plan.estimate import Load as Load
from roles.plan.estimate import Task as Task
from roles.plan.plan import Cluster as Cluster
from roles.plan.plan import Executor as Executor
from roles.plan.plan import HostPlan as HostPlan
from roles.plan.plan import MemorySum as MemorySum
from roles.plan.plan import Plan as Plan
from roles.plan.plan import Replica as Replica
from roles.plan.plan import Shape as Shape
from roles.plan.plan import with_p2p_of as with_p2p_of
from roles.plan.saved import check_saved as check_saved
from roles.plan.saved import plan_differences as plan_differences
from roles.plan.saved import saved as saved
