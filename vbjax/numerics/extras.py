"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(extra: str, module: str) -> ModuleType:
    """Import a module of an optional package; an ImportError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(
            f"{package} is not installed: python -m pip install 'vbjax-inference[{extra}]'"
        ) from error
