"""Stands in for Prefect where it is not installed, as on a GPU machine that knows no registry.

Outside a flow run Prefect decides nothing: `tasks` import its names, and a stage is then its plain function with lease,
commit and link (`tasks.stage.Stage.__call__`). So names are all that is needed; what is called of them all the same
fails as an object that has no such method.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Names(ModuleType):
    """A module that has every name, each an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _NoFlowRun:
    """`FlowRunContext` outside a flow run."""

    @staticmethod
    def get() -> None:
        """Nothing runs."""


class _TerminationSignal(BaseException):
    """Raised by Prefect's runner alone."""


def _task(**settings: Any) -> Callable[[Any], Any]:
    return lambda function: function


_KNOWN = {
    "prefect": {"task": _task},
    "prefect.context": {"FlowRunContext": _NoFlowRun},
    "prefect.exceptions": {"TerminationSignal": _TerminationSignal},
}


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of Prefect and everything in it."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] == "prefect" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """All names."""
        return _Names(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Those that have to be something."""
        vars(module).update(_KNOWN.get(module.__name__, {}))


def stand_in(*, always: bool = False) -> bool:
    """Put the names in Prefect's place before `tasks` is imported, unless it is installed; returns whether they are."""
    absent = importlib.util.find_spec("prefect") is None
    if absent or always:
        sys.meta_path.insert(0, _Finder())
    return absent or always
