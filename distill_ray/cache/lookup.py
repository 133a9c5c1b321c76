"""Finds a function or an output in a root by what a person calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distill_ray.cache import paths
from distill_ray.cache.inventory import Root, identify, in_order
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
        named = f"{self.function.class_name}-{self.function.signature}"
        return self.root.path(f"{named}, output {self.output}" if self.output else named)


def find_entries(root: Root, name: str) -> Iterator[Entry]:
    """Give what a name means: a class, or the beginning of a folder, of a signature or of an output key."""
    folders = root.store.storage.folders(paths.STEPS_FOLDER)
    functions = [each for each in in_order(lambda folder: identify(root.store, folder), folders) if each]
    found = [each for each in functions if _is_meant(each, name)]
    if found:
        yield from (Entry(root, function) for function in found)
        return
    for outputs in in_order(lambda function: _outputs(root, function, name), functions):
        yield from outputs


def _is_meant(function: FunctionId, name: str) -> bool:
    folder = function.folder.removeprefix(f"{paths.STEPS_FOLDER}/")
    begins = folder.startswith(name) and len(name) > len(folder) - len(function.signature)
    return function.class_name == name or function.signature.startswith(name) or begins


def _outputs(root: Root, function: FunctionId, name: str) -> list[Entry]:
    listed = root.store.storage.sizes(function.outputs_folder)
    keys = (key.removesuffix(paths.RECORD_ENDING) for key in sorted(listed) if key.startswith(name))
    return [Entry(root, function, key) for key in keys]
