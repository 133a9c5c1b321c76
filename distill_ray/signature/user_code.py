"""The border between users' own code, whose text counts, and installed distributions, which count by name.

Code is the user's if its file lies in no installed distribution, nor in the standard library, nor in this
package. A project that is installed as editable stays the user's.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from types import FunctionType

_THIS_PACKAGE = Path(__file__).resolve().parents[1]


def is_user_module(name: str) -> bool:
    """Whether a module is the user's own. One that nobody can find is: its code must not pass unseen."""
    if name == "__main__":
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is not None:
        return is_user_file(str(file))
    root = name.partition(".")[0]
    return root not in sys.stdlib_module_names and not hasattr(module, "__path__")


def is_user_import(name: str) -> bool | None:
    """Whether an import would find the user's own module; None if it would find nothing. Imports nothing."""
    if name in sys.modules:
        return is_user_module(name)
    root = name.partition(".")[0]
    if root in sys.modules:
        return is_user_module(root)
    spec = importlib.util.find_spec(root)
    if spec is None:
        return None
    places = (
        [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    )
    return any(is_user_file(place) for place in places)


def is_user_class(cls: type) -> bool:
    """Whether a class was written by the user."""
    return is_user_module(cls.__module__)


def is_user_function(function: FunctionType) -> bool:
    """Whether a function was written by the user: by its code's file, as decorators copy ``__module__``."""
    file = function.__code__.co_filename
    if is_pseudo_file(file):
        return is_user_module(str(function.__globals__.get("__name__")))
    return is_user_file(file)


def is_pseudo_file(name: str) -> bool:
    """Whether code came from no file: typed in, made by ``exec``, frozen, a notebook's or a doctest's."""
    return name.startswith("<")


@functools.lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """Whether a file's code is the user's; code that was typed in is, what is compiled or frozen is not."""
    if is_pseudo_file(file):
        return not file.startswith("<frozen ")
    if file.endswith(".pyx"):
        return False
    path = Path(os.path.realpath(file))
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in (_THIS_PACKAGE, *_standard_library()))


@functools.lru_cache(maxsize=1)
def _standard_library() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib"))
