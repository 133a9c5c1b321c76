"""The name of a class or function that is the same on every machine, in every process, on every Python.

``__module__`` alone is not: ``pathlib.Path`` lives in ``pathlib._local`` on Python 3.13, ``os.path.join`` in
``posixpath``, and a script's classes live in ``__main__`` or in a module, by how the script was started.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import PurePath
from typing import Any

_SAME_MODULE = {"posixpath": "os.path", "ntpath": "os.path"}


def qualified_name(thing: Any) -> str:
    """The shortest dotted name under which an importable class, function or object can be found.

    Example:
        >>> import pathlib
        >>> qualified_name(pathlib.Path)
        'pathlib.Path'
    """
    name = own_name(thing)
    module = module_name(str(getattr(thing, "__module__", None) or type(thing).__module__))
    for candidate in _public_modules(module):
        if _find(candidate, name) is thing:
            return f"{candidate}.{name}"
    return f"{module}.{name}"


def own_name(thing: Any) -> str:
    """The name that a class, function or special form gives itself, else the name of its class."""
    for attribute in ("__qualname__", "__name__", "_name"):
        name = getattr(thing, attribute, None)
        if isinstance(name, str):
            return name
    return type(thing).__qualname__


def module_name(name: str) -> str:
    """A module's name, where ``__main__`` is the name the script has when it is imported instead."""
    if name != "__main__":
        return _SAME_MODULE.get(name, name)
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else name


def _public_modules(module: str) -> list[str]:
    """The packages that may show a thing of this module in public, shortest name first."""
    parts = module.split(".")
    public = [".".join(parts[:end]) for end in range(1, len(parts))]
    if parts[0].startswith("_") and module != "__main__":
        public.append(parts[0].lstrip("_"))
    return public


def _find(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in name.split("."):
                found = getattr(found, part)
    except Exception:  # a package's own __getattr__ may raise anything
        return None
    return found
