"""What GPUs a host has, how they are linked and what is wrong with them: pure code only."""

from roles.hardware.cards import Card as Card
from roles.hardware.cards import cards as cards
from roles.hardware.cards import find_card as find_card
from roles.hardware.declared import declared_hardware as declared_hardware
from roles.hardware.difference import difference as difference
from roles.hardware.difference import summary as summary
from roles.hardware.gpus import Gpu as Gpu
from roles.hardware.gpus import Hardware as Hardware
from roles.hardware.lspci import PciGpu as PciGpu
from roles.hardware.lspci import parse_lspci as parse_lspci
from roles.hardware.nvidia_smi import SmiReport as SmiReport
from roles.hardware.nvidia_smi import parse_query as parse_query
from roles.hardware.report import HostReport as HostReport
from roles.hardware.report import parse_report as parse_report
from roles.hardware.settings import GpuDeclaration as GpuDeclaration
from roles.hardware.settings import GpusDeclaration as GpusDeclaration
from roles.hardware.settings import Links as Links
from roles.hardware.settings import LinksDeclaration as LinksDeclaration
