"""Finds the pipeline in a user's script, without running what stands under ``if __name__ == "__main__"``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from distill_ray.errors import ParameterError
from distill_ray.pipeline import Pipeline
from distill_ray.tracebacks import user_traceback


class ScriptError(Exception):
    """The user's script raised while it was read; the text holds its traceback, without frames of ours."""

    def __init__(self, path: Path, error: BaseException) -> None:
        super().__init__(f"{path} raised while it was read.\n\n{user_traceback(error)}")


def load_pipeline(target: str, cache_dir: tuple[str, ...] = ()) -> Pipeline:
    """Load ``SCRIPT[:PIPELINE]``.

    Args:
        target: the script, and the variable or name of the pipeline where it has several.
        cache_dir: the cache roots to use instead of the pipeline's own; may be empty.

    Raises:
        ParameterError: there is no such script, or not exactly one pipeline of that name in it.
        ScriptError: the script raised.
    """
    path, wanted = split_target(target)
    pipelines = {name: value for name, value in _run(path).items() if isinstance(value, Pipeline)}
    if not pipelines:
        raise ParameterError(
            f"{path} has no pipeline: make one at its top level, outside of functions and of "
            '`if __name__ == "__main__"`.'
        )
    first_names = {id(pipeline): name for name, pipeline in reversed(pipelines.items())}
    listed = ", ".join(f"'{name}'" for name in pipelines if name in first_names.values())
    found = {
        id(pipeline): pipeline
        for name, pipeline in pipelines.items()
        if not wanted or wanted in (name, pipeline.name)
    }
    if not found:
        raise ParameterError(f"{path} has no pipeline '{wanted}'. It has: {listed}.")
    if len(found) > 1:
        example = first_names[next(iter(found))]
        raise ParameterError(f"{path} has {len(found)} pipelines ({listed}). Say which: {path}:{example}.")
    pipeline = next(iter(found.values()))
    if cache_dir:
        pipeline.cache_dir = cache_dir
    return pipeline


def split_target(target: str) -> tuple[Path, str]:
    """The script and the pipeline in ``SCRIPT[:PIPELINE]``; the latter may be empty.

    Raises:
        ParameterError: there is no such script.
    """
    path = Path(target)
    wanted = ""
    if not path.exists() and ":" in target:
        file, _, wanted = target.rpartition(":")
        path = Path(file)
    if not path.exists():
        raise ParameterError(f"There is no script {path}.")
    if not path.is_file() or path.suffix != ".py":
        raise ParameterError(f"{path} is no Python script (.py).")
    return path, wanted


def _run(path: Path) -> dict[str, Any]:
    """Import the script as a module of its own name; the rest is as with ``python script.py``."""
    name = path.stem
    if "." in name:
        raise ParameterError(f"{path} cannot be imported where steps run: its name has a dot before '.py'.")
    if name in sys.stdlib_module_names or name in sys.modules:
        raise ParameterError(f"{path} has the name of another module, '{name}': give it a name of its own.")
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv[:] = [str(path)]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script may call sys.exit
        raise ScriptError(path, error) from error
    return vars(module)
