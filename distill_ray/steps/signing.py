"""What of a step goes into its signature: class, code, signed parameters, mappings and kind.

The tree made here is both hashed (`function_signature`) and stored beside what the function computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from distill_ray.errors import SignatureError
from distill_ray.signature.encode import describe, digest
from distill_ray.signature.fingerprint import fingerprint, is_user_code
from distill_ray.steps.base import BaseStep
from distill_ray.steps.marks import is_unsigned


@dataclass(frozen=True)
class StepFunction:
    """A step's class, code and signed parameters: what it computes, whatever it is applied to.

    Attributes:
        class_name: the class's bare name.
        signature: SHA-256 of the preimage, in hex.
        preimage: the encoded tree, JSON-able, secrets left out.
        code: the normalised source of each piece of user code that counts.
        blind_spots: what the fingerprint of the code cannot see, in sentences.
    """

    class_name: str
    signature: str
    preimage: Any
    code: Mapping[str, str]
    blind_spots: tuple[str, ...] = ()


def step_function(step: BaseStep) -> StepFunction:
    """Sign a step.

    Raises:
        SignatureError: a value or the code cannot be signed; names step and field.
    """
    try:
        walk = _Walk()
        tree = {
            "kind": "generator" if step.is_generator else "global" if step.is_global else "step",
            "step": walk.model(step),
        }
        return StepFunction(
            class_name=type(step).__name__,
            signature=digest(tree),
            preimage=describe(tree),
            code=walk.code,
            blind_spots=tuple(walk.blind_spots),
        )
    except SignatureError as error:
        raise SignatureError(f"Step '{step.label}': {error}") from error


class _Walk:
    """One pass over a step and the models nested in it, gathering code and blind spots on the way."""

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self.blind_spots: list[str] = []

    def model(self, value: BaseModel) -> dict[str, Any]:
        excluded: frozenset[str] = getattr(value, "exclude_from_signature", frozenset())
        unknown = set(excluded) - set(type(value).model_fields)
        if unknown:
            raise SignatureError(f"exclude_from_signature names {sorted(unknown)}, which are no parameters.")
        fields = {
            name: self.value(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if not is_unsigned(field) and name not in excluded and not _is_secret(getattr(value, name))
        }
        tree = {"class": self.class_code(type(value)), "fields": fields}
        if value.model_extra:
            tree["extra"] = self.value(value.model_extra)
        signed_state = getattr(value, "signed_state", None)
        if callable(signed_state) and (state := signed_state()):
            tree["state"] = self.value(state)
        return tree

    def class_code(self, cls: type) -> dict[str, str]:
        """The class by its version, its source, or its name where an installed library holds it."""
        version = cls.__dict__.get("version")
        if isinstance(version, str):
            return {"name": cls.__qualname__, "version": version}
        function = cls.__dict__.get("function")
        if isinstance(function, staticmethod):  # made by @step: the user's code is the function
            return {"name": cls.__qualname__, "code": self.callable_code(function.__func__)}
        if is_user_code(cls.__module__):
            return {"name": cls.__qualname__, "code": self.callable_code(cls)}
        inherited = getattr(cls, "version", None)
        name = f"{cls.__module__}.{cls.__qualname__}"
        return {"name": name, "version": inherited if isinstance(inherited, str) else ""}

    def callable_code(self, value: Any) -> str:
        result = fingerprint(value)
        self.code.update(dict(result.pieces))
        self.blind_spots.extend(result.blind_spots)
        return result.digest

    def value(self, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return self.model(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items() if not _is_secret(item)}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value if not _is_secret(item)]
        if inspect.isfunction(value):
            return {"function": value.__qualname__, "code": self.callable_code(value)}
        if inspect.isclass(value):
            return self.class_code(value)
        return value


def _is_secret(value: Any) -> bool:
    return isinstance(value, SecretStr | SecretBytes)
