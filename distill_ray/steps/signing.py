"""What of a step goes into its signature: class, code, signed parameters, mappings and kind.

The tree made here is both hashed (`step_function`) and stored beside what the function computed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from pydantic import BaseModel

from distill_ray.errors import SignatureError
from distill_ray.models.llm import LLM
from distill_ray.signature.content import content_of, state
from distill_ray.signature.encode import Encoding
from distill_ray.signature.fingerprint import fingerprint, put_piece
from distill_ray.signature.qualified_name import qualified_name
from distill_ray.signature.references import class_version
from distill_ray.signature.stand_in import Tagged, is_secret
from distill_ray.signature.user_code import is_user_class, is_user_function
from distill_ray.steps.base import BaseStep, Step, is_row_wise, kind_of, label_of
from distill_ray.steps.declared import declared_columns
from distill_ray.steps.marks import is_unsigned


@dataclass(frozen=True)
class StepFunction:
    """A step's class, code and signed parameters: what it computes, whatever it is applied to.

    Attributes:
        class_name: the class's bare name.
        signature: SHA-256 of the preimage, in hex.
        preimage: the encoded tree, JSON-able, secrets left out, long data by its digest.
        code: the normal form of the source of each piece of user code that counts, and digests of the values
            that it uses.
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
    signing = _Signing()
    encoding = Encoding(signing.stand_in)
    try:
        tree = Tagged(kind_of(step), {**signing.signed_fields(step), **_handing(step)})
        return StepFunction(
            class_name=type(step).__name__,
            signature=encoding.digest(tree),
            preimage=encoding.describe(tree),
            code=signing.code,
            blind_spots=tuple(sorted(signing.blind_spots)),
        )
    except SignatureError as error:
        raise SignatureError(f"Step '{label_of(step)}': {error}") from error


def signature_of(value: object, label: str) -> str:
    """Sign what is no step, such as a function.

    Raises:
        SignatureError: it cannot be signed; names it by ``label``.
    """
    try:
        return Encoding(_Signing().stand_in).digest(value)
    except SignatureError as error:
        raise SignatureError(f"{label}: {error}") from error


def _handing(step: BaseStep) -> dict[str, Any]:
    """Of a row-wise step, which columns it is handed, and whether it is given back the others."""
    if not isinstance(step, Step) or not is_row_wise(step):
        return {}
    return {"_row_wise": {"columns": declared_columns(step), "joins_input": step.joins_input}}


class _Signing:
    """Gives what stands for the values in a step, gathering code and blind spots on the way."""

    def __init__(self) -> None:
        self.code: dict[str, str] = {}
        self.blind_spots: set[str] = set()
        self._known: dict[int, tuple[object, Tagged]] = {}
        self._digests: dict[type | FunctionType, str] = {}

    def stand_in(self, value: object) -> Tagged:
        """Return what stands for a value that the encoding does not know; each is worked out once."""
        if id(value) not in self._known:
            self._known[id(value)] = (value, self._stand_in(value))
        return self._known[id(value)][1]

    def _stand_in(self, value: object) -> Tagged:
        if isinstance(value, BaseModel):
            kind = kind_of(value) if isinstance(value, BaseStep) else "model"
            return Tagged(kind, self.signed_fields(value))
        if isinstance(value, type):
            return Tagged("class", self._class(value))
        if isinstance(value, FunctionType):
            return Tagged("function", self._function(value))
        return content_of(value) or Tagged("object", {"class": type(value), **state(value)})

    def signed_fields(self, value: BaseModel) -> dict[str, Any]:
        """Return the class and the signed fields of a step, an LLM or any other model."""
        cls = type(value)
        fields = cls.model_fields
        excluded: frozenset[str] = getattr(value, "exclude_from_signature", frozenset())
        if unknown := sorted(set(excluded) - set(fields) - set(cls.__private_attributes__)):
            raise SignatureError(
                f"exclude_from_signature names {', '.join(unknown)}, which {cls.__name__} does not have "
                f"(it has {', '.join(sorted(fields))})."
            )
        tree: dict[str, Any] = {"_class": self._class(cls)}
        for name, field in fields.items():
            item = getattr(value, name)
            if not is_unsigned(field) and name not in excluded and not is_secret(item):
                tree[name] = item
        if value.model_extra:
            tree["_extra"] = value.model_extra
        signed_state = getattr(value, "signed_state", None)
        if callable(signed_state) and (found := signed_state()):
            tree["_state"] = found
        if isinstance(value, LLM):
            self.blind_spots.update(value.blind_spots())
            self._tell_of_private(value)
            return tree
        return {**tree, **self._private(value, excluded)}

    def _private(self, value: BaseModel, excluded: Container[str]) -> dict[str, Any]:
        """Return the values that private attributes have by now: replicas get them too."""
        found: dict[str, Any] = {}
        for name, item in (value.__pydantic_private__ or {}).items():
            if name in excluded:
                continue
            try:
                Encoding(self.stand_in).encode(item)
            except SignatureError:
                self._add_unseen(value, name)
            else:
                found[name] = item
        return {"_private": found} if found else {}

    def _tell_of_private(self, llm: LLM) -> None:
        """Private attributes of an LLM do not count, as `load` sets them: say so of a user's that are set."""
        of_load = {name for base in type(llm).__mro__ for name in getattr(base, "loaded_state", ())}
        for name, declared in llm.__private_attributes__.items() if is_user_class(type(llm)) else ():
            item, default = getattr(llm, name, None), declared.get_default()
            if name not in llm.exclude_from_signature | of_load and not self._are_equal(item, default):
                self._add_unseen(llm, name)

    def _are_equal(self, one: object, other: object) -> bool:
        encoding = Encoding(self.stand_in)
        try:
            return one is other or encoding.encode(one) == encoding.encode(other)
        except SignatureError:
            return False

    def _add_unseen(self, value: BaseModel, name: str) -> None:
        self.blind_spots.add(f"'{type(value).__name__}' holds '{name}', whose content does not count.")

    def _class(self, cls: type) -> dict[str, str]:
        """The class by its version, its code, or its name where an installed library holds it."""
        version = class_version(cls)
        if version is not None or not is_user_class(cls):
            return {"name": qualified_name(cls), "version": version or ""}
        return {"name": cls.__qualname__, "code": self._digest(cls)}

    def _function(self, function: FunctionType) -> dict[str, str]:
        name = function.__qualname__ if is_user_function(function) else qualified_name(function)
        return {"name": name, "code": self._digest(function)}

    def _digest(self, code: type | FunctionType) -> str:
        if code not in self._digests:
            self._digests[code] = ""  # its own code may lead to a model that is being signed
            found = fingerprint(code, self._declared)
            for name, text in found.pieces:
                put_piece(self.code, name, text)
            self.blind_spots.update(found.blind_spots)
            self._digests[code] = found.digest
        return self._digests[code]

    def _declared(self, value: object) -> Tagged | None:
        return self.stand_in(value) if isinstance(value, BaseModel) else None
