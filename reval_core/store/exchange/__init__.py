"""Trajectories leave the store as files that any tool reads, and come back; those of other systems come in."""

from reval_core.store.exchange.completions import import_completions
from reval_core.store.exchange.exporting import Exported, export
from reval_core.store.exchange.importing import import_export, is_export
from reval_core.store.exchange.layouts import LAYOUTS
from reval_core.store.exchange.selection import PURPOSES, Selection
from reval_core.store.exchange.tally import Tally
from reval_core.store.exchange.tokenising import Tokeniser

__all__ = [
    "LAYOUTS",
    "PURPOSES",
    "Exported",
    "Selection",
    "Tally",
    "Tokeniser",
    "export",
    "import_completions",
    "import_export",
    "is_export",
]
