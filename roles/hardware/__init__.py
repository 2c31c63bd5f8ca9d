"""What GPUs a host has, how they are linked and what is wrong with them: pure code only."""

from roles.hardware.cards import Card as Card
from roles.hardware.cards import find_card as find_card
from roles.hardware.cards import usable_memory_mib as usable_memory_mib
from roles.hardware.declared import declared_hardware as declared_hardware
from roles.hardware.declared import declared_links as declared_links
from roles.hardware.devices import slice_memory_mib as slice_memory_mib
from roles.hardware.difference import difference as difference
from roles.hardware.difference import findings as findings
from roles.hardware.difference import summary as summary
from roles.hardware.gpus import Gpu as Gpu
from roles.hardware.gpus import Hardware as Hardware
from roles.hardware.gpus import links_among as links_among
from roles.hardware.links import link_slowness as link_slowness
from roles.hardware.links import p2p_possible as p2p_possible
from roles.hardware.links import worst_link as worst_link
from roles.hardware.recorded import completed as completed
from roles.hardware.recorded import entry as entry
from roles.hardware.recorded import read_recording as read_recording
from roles.hardware.recorded import recorded_hardware as recorded_hardware
from roles.hardware.recorded import recording as recording
from roles.hardware.report import HostReport as HostReport
from roles.hardware.report import parse_report as parse_report
from roles.hardware.settings import GpusDeclaration as GpusDeclaration
from roles.hardware.settings import LinksDeclaration as LinksDeclaration
