"""Finds a function or an output in a root by what a person calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.cache.in_order import in_order
from distill_ray.cache.inventory import Root, identify
from distill_ray.cache.paths import FunctionId


@dataclass(frozen=True)
class Entry:
    """A function, or one of its outputs.

    Attributes:
        root: where it stands.
        function: the function.
        output: name of the output's manifest without its ending; empty where the function is meant.
    """

    root: Root
    function: FunctionId
    output: str = ""

    def __str__(self) -> str:
        named = _name(self.function)
        return self.root.path(f"{named}/{self.output}" if self.output else named)


def find_entries(root: Root, name: str) -> Iterator[Entry]:
    """Give what a name means: a class, or the beginning of ``class-signature``, of a signature or output key.

    The text of an `Entry` is a name of it too: with the place of a root within the root in front, and of an
    output with ``class-signature``.
    """
    function_name, _, key = name.removeprefix(root.path("")).rpartition("/")
    folders = root.store.storage.folders(paths.STEPS_FOLDER)
    functions = [each for each in in_order(lambda folder: identify(root.store, folder), folders) if each]
    if function_name:
        functions = [each for each in functions if _name(each) == function_name]
    elif found := [each for each in functions if _is_meant(each, key)]:
        yield from (Entry(root, function) for function in found)
        return
    for outputs in in_order(lambda function: _outputs(root, function, key), functions):
        yield from outputs


def _name(function: FunctionId) -> str:
    return f"{function.class_name}-{function.signature}"


def _is_meant(function: FunctionId, name: str) -> bool:
    begins = _name(function).startswith(name) and len(name) > len(f"{function.class_name}-")
    return function.class_name == name or function.signature.startswith(name) or begins


def _outputs(root: Root, function: FunctionId, begin: str) -> list[Entry]:
    listed = root.store.storage.sizes(function.outputs_folder)
    keys = (key.removesuffix(paths.RECORD_ENDING) for key in sorted(listed) if key.startswith(begin))
    return [Entry(root, function, key) for key in keys]
