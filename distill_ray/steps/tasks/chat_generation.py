"""The task that continues a conversation."""

from __future__ import annotations

from typing import Any

from distill_ray.errors import ParameterError
from distill_ray.models.llm import ChatType
from distill_ray.steps.tasks.task import Task
from distill_ray.types import Row, StepColumns


class ChatGeneration(Task):
    """Generate the assistant's next message of a conversation.

    Input columns: ``messages``, a list of ``{"role": ..., "content": ...}`` whose last one is the user's.

    Output columns: ``generation`` and ``model_name``.
    """

    @property
    def inputs(self) -> StepColumns:
        """``messages``."""
        return ["messages"]

    @property
    def outputs(self) -> StepColumns:
        """``generation`` and ``model_name``."""
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:  # noqa: A002 - distilabel's name
        """Return the row's conversation.

        Raises:
            ParameterError: it is none, or its last message is not the user's.
        """
        messages: ChatType = _checked(input.get("messages"))
        return messages

    def format_output(self, output: str | None, input: Row) -> Row:  # noqa: A002, ARG002
        """The answer as it is, as ``generation``."""
        return {"generation": output}


def _checked(messages: Any) -> Any:
    if not isinstance(messages, list) or not messages:
        raise ParameterError(f"`messages` must be a list of messages with one at least, got {messages!r}.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ParameterError(f"`messages[{index}]` must have `role` and `content`, got {message!r}.")
    if messages[-1]["role"] != "user":
        raise ParameterError(f"the last of `messages` must be from the user, got {messages[-1]!r}.")
    return messages
