"""The task that answers a prompt made from a template and the row's columns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from distill_ray.errors import ParameterError
from distill_ray.models.llm import ChatType
from distill_ray.steps.base import label_of
from distill_ray.steps.tasks.task import Task
from distill_ray.types import Row, RuntimeParameter, StepColumns

_ENVIRONMENT = SandboxedEnvironment()


class TextGeneration(Task):
    """Generate text from a prompt.

    Attributes:
        system_prompt: the system prompt; a row's own column ``system_prompt`` goes before it.
        use_system_prompt: False passes over the rows' column ``system_prompt``.
        template: the prompt, in Jinja2's syntax.
        columns: the columns that the template uses.

    Input columns: ``columns`` (``instruction`` where not given), and ``system_prompt`` where rows have it.

    Output columns: ``generation`` and ``model_name``.
    """

    system_prompt: RuntimeParameter[str | None] = None
    use_system_prompt: bool = True
    template: RuntimeParameter[str] = "{{ instruction }}"
    columns: RuntimeParameter[str | list[str]] = Field(default="instruction", min_length=1)

    @field_validator("columns")
    @classmethod
    def _list_columns(cls, columns: str | list[str]) -> list[str]:
        return [columns] if isinstance(columns, str) else columns

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        try:
            used = _variables(self.template)
        except TemplateError as error:
            raise ParameterError(
                f"Task '{label_of(self)}': the template is not valid Jinja2: {error}"
            ) from error
        if unknown := sorted(used - set(self.columns)):
            raise ParameterError(
                f"Task '{label_of(self)}': the template uses {unknown}, which `columns` does not name. "
                f"columns={list(self.columns)}; add them there, or mend the template."
            )
        if unused := [column for column in self.columns if column not in used]:
            raise ParameterError(
                f"Task '{label_of(self)}': `columns` names {unused}, which the template does not use. "
                "Take them out, or use them in the template."
            )
        return self

    @property
    def inputs(self) -> StepColumns:
        """The columns of the template, and ``system_prompt`` where rows have it."""
        required = dict.fromkeys(self.columns, True)
        return {**({"system_prompt": False} if self.use_system_prompt else {}), **required}

    @property
    def outputs(self) -> StepColumns:
        """``generation`` and ``model_name``."""
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        """Render the template, after the system prompt if there is one.

        Raises:
            ParameterError: the row lacks a column, or has a value that no prompt can be made from.
        """
        if self.columns == ["instruction"]:
            _check_instruction(input.get("instruction"))
        if missing := [column for column in self.columns if column not in input]:
            raise ParameterError(f"the columns {missing} are missing; the row has {sorted(input)}.")
        fields: dict[str, Any] = {column: input[column] for column in self.columns}
        try:
            prompt = _compile(self.template).render(**fields)
        except TemplateError as error:
            raise ParameterError(f"the template cannot be rendered: {error}") from error
        row_prompt = input.get("system_prompt") if self.use_system_prompt else None
        system_prompt = row_prompt or self.system_prompt
        system: ChatType = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return [*system, {"role": "user", "content": prompt}]

    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002, ARG002
        """The answer as it is, as ``generation``."""
        return {"generation": output}


@lru_cache(maxsize=64)
def _compile(template: str) -> Template:
    return _ENVIRONMENT.from_string(template)


def _variables(template: str) -> set[str]:
    """Names that the template takes from the row."""
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(template)) - set(_ENVIRONMENT.globals)


def _check_instruction(instruction: Any) -> None:
    if isinstance(instruction, str):
        return
    hint = " For conversations use ChatGeneration with the column `messages`." * isinstance(instruction, list)
    raise ParameterError(f"`instruction` must be a text, got {instruction!r}.{hint}")
