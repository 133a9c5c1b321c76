"""What a cache root says of itself in ``format.json``: format, salt, and which functions are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from distill_ray.cache import paths
from distill_ray.cache.paths import FORMAT_FILE, FORMAT_VERSION
from distill_ray.errors import FormatVersionError, StorageError
from distill_ray.storage import Storage

_TRIES = 5


class RootSettings(BaseModel):
    """The settings that all users of a root share; read once whenever it is opened.

    Attributes:
        salt: while there is one, everything stands in a folder of its own, and what was stored without it, or
            with another, is not looked at.
        aliases: signatures of functions, each with that of the older function whose outputs are its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    salt: str = ""
    aliases: Mapping[str, str] = {}

    def canonical(self, signature: str) -> str:
        """Return the signature that a function's outputs are stored under: the end of its aliases' chain."""
        passed = {signature}
        while (older := self.aliases.get(signature)) is not None and older not in passed:
            passed.add(older)
            signature = older
        return signature

    def with_alias(self, new: str, old: str) -> RootSettings:
        """Return the settings in which the outputs of ``old`` are those of ``new`` too."""
        known = self.canonical(old)
        if self.canonical(new) == known:
            return self
        return self.model_copy(update={"aliases": {**self.aliases, new: known}})

    def before(self, other: RootSettings) -> RootSettings:
        """Return these settings, with the aliases that only a root read after this one knows."""
        merged = self
        for new, old in other.aliases.items():
            if new not in self.aliases:
                merged = merged.with_alias(new, old)
        return merged

    def to_json(self) -> bytes:
        """Return the content of ``format.json``."""
        return json.dumps({"format": FORMAT_VERSION, **self.model_dump(exclude_defaults=True)}).encode()


def read_settings(storage: Storage) -> RootSettings:
    """Return a root's settings; those of an empty one are the default.

    Raises:
        FormatVersionError: the root's format is not ours.
    """
    return _find_settings(storage) or RootSettings()


def _find_settings(storage: Storage) -> RootSettings | None:
    try:
        return _parse(storage.read(FORMAT_FILE), storage.url)
    except FileNotFoundError:
        return None


def is_used(storage: Storage) -> bool:
    """Whether anything was ever stored in a root; one whose settings are gone still holds steps or runs."""
    try:
        storage.read(FORMAT_FILE)
    except FileNotFoundError:
        folders = (paths.STEPS_FOLDER, paths.RUNS_FOLDER, *paths.SUBROOT_FOLDERS)
        return any(storage.folders(folder) for folder in folders)
    return True


def claim(storage: Storage) -> None:
    """Mark an empty root as one of our format, before anything else is written to it.

    Raises:
        FormatVersionError: another format was quicker.
    """
    try:
        _parse(storage.read(FORMAT_FILE), storage.url)
    except FileNotFoundError:
        storage.put_if_absent(FORMAT_FILE, RootSettings().to_json())
        read_settings(storage)


def open_root(storage: Storage) -> tuple[Storage, RootSettings, bool]:
    """Return where everything of a root stands, as its salt has it, its settings, and whether it is claimed.

    Raises:
        FormatVersionError: the root's format is not ours.
    """
    found = _find_settings(storage)
    settings = found or RootSettings()
    place = storage.below(paths.salted_folder(settings.salt)) if settings.salt else storage
    return place, settings, found is not None


def set_salt(storage: Storage, salt: str) -> RootSettings:
    """Give a root another salt, or none (``""``): disowns, at once, all that was stored under the one before.

    Nothing is removed: what was stored comes back with its salt.

    Raises:
        FormatVersionError: the root's format is not ours.
        StorageError: others keep changing the settings.
    """
    return _change(storage, lambda settings: settings.model_copy(update={"salt": salt}))


def add_alias(storage: Storage, new: str, old: str) -> RootSettings:
    """Let the function with signature ``new`` use, and add to, what ``old`` computed.

    Raises:
        FormatVersionError: the root's format is not ours.
        StorageError: others keep changing the settings.
    """
    return _change(storage, lambda settings: settings.with_alias(new, old))


def _change(storage: Storage, change: Callable[[RootSettings], RootSettings]) -> RootSettings:
    """Read, change, write, and see that it is still so: no store can do that in one go."""
    for _ in range(_TRIES):
        changed = change(read_settings(storage))
        storage.publish(FORMAT_FILE, changed.to_json())
        if change(found := read_settings(storage)) == found:
            return found
    raise StorageError(
        f"The settings in {storage.url}/{FORMAT_FILE} were changed by others {_TRIES} times. Try again."
    )


def _parse(data: bytes, url: str) -> RootSettings:
    try:
        record: dict[str, Any] = json.loads(data)
        version = int(record.pop("format"))
        if version == FORMAT_VERSION:
            return RootSettings.model_validate(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatVersionError(
            f"{url}/{FORMAT_FILE} holds {data[:200]!r}, which no distill_ray wrote that this one knows "
            f"(it writes format {FORMAT_VERSION}). Use another `cache_dir`; or, if it was damaged, write it "
            f'anew: {{"format": {FORMAT_VERSION}}}, with the salt and the aliases that it had.'
        ) from error
    raise FormatVersionError(_other_format(url, version))


def _other_format(url: str, version: int) -> str:
    from distill_ray import __version__

    said = (
        f"The cache root {url} has format {version}; this distill_ray ({__version__}) reads and writes "
        f"format {FORMAT_VERSION}."
    )
    if version > FORMAT_VERSION:
        return f"{said} A newer distill_ray made it: upgrade this one, or use another `cache_dir`."
    return f"{said} An older one made it: use another `cache_dir`, or the distill_ray that made it."
