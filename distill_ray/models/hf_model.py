"""What identifies a model in Hugging Face's format: the content of its folder, or its repository's commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill_ray.errors import ModelError
from distill_ray.models.hub_commit import hub_commit
from distill_ray.models.local_model import hub_repository
from distill_ray.models.weights_digest import folder_sha256


@dataclass(frozen=True)
class HFModel:
    """Weights, a tokenizer or an adapter.

    Attributes:
        place: the path of a folder, or a Hub repository (``"org/name"``).
        revision: the commit, tag or branch of a Hub repository.
    """

    place: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one on this machine."""
        folder = Path(self.place).expanduser()
        return folder if folder.is_dir() else None

    @property
    def name(self) -> str:
        """The repository, or the folder's name without the folders that it lies in."""
        if self.folder is None and hub_repository(self.place) == self.place:
            return self.place
        return Path(self.place).expanduser().absolute().name

    def identity(self) -> dict[str, str | None]:
        """Return its name with the digest of the folder, or the Hub's commit; nothing is fetched.

        Raises:
            ModelError: It is the path of a folder that is not there.
        """
        if self.folder is not None:
            return {"name": self.name, "sha256": folder_sha256(self.folder)}
        if hub_repository(self.place) != self.place:
            raise ModelError(
                f"Model '{self.place}': there is no such folder on this machine, and it is no Hub repository "
                "('org/name'). Give the path of a folder in Hugging Face's format that every node can read, "
                "or a repository."
            )
        return {"name": self.name, "commit": self.commit or self.revision}

    @property
    def commit(self) -> str | None:
        """The commit that the revision of the repository stands for; None where that is not known."""
        return hub_commit(self.place, self.revision)

    @property
    def is_unseen(self) -> bool:
        """Whether other weights may come under the same name."""
        return self.folder is None and self.commit is None
