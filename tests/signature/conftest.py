"""Modules that tests write, import, edit and import again."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

_numbers = itertools.count()


@pytest.fixture
def write_module(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Write a module of a user's and import it, anew each time; ``name`` is what others import it by."""
    known = dict(sys.modules)

    def write(text: str, name: str = "work") -> ModuleType:
        path = tmp_path / str(next(_numbers)) / f"{name}.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield write
    for name in set(sys.modules) - set(known):
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
