"""The plan of a rolling update: what moves in which batch, when it stops, what is drained. Pure."""

from roles.rolling.decide import Decision as Decision
from roles.rolling.decide import Failure as Failure
from roles.rolling.decide import HostStep as HostStep
from roles.rolling.decide import Progress as Progress
from roles.rolling.decide import decide as decide
from roles.rolling.decide import undrained as undrained
from roles.rolling.members import ROLLING_UPDATE as ROLLING_UPDATE
from roles.rolling.members import Change as Change
from roles.rolling.members import HostRestart as HostRestart
from roles.rolling.members import Member as Member
from roles.rolling.members import Removal as Removal
from roles.rolling.members import Restart as Restart
from roles.rolling.moves import Move as Move
from roles.rolling.moves import moves as moves
from roles.rolling.plan import Batch as Batch
from roles.rolling.plan import Interruption as Interruption
from roles.rolling.plan import RollingPlan as RollingPlan
from roles.rolling.plan import Skipped as Skipped
from roles.rolling.plan import batch_slots as batch_slots
from roles.rolling.plan import plan_rolling as plan_rolling
