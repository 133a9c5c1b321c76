from __future__ import annotations

from typing import Any

import pytest

from distill_ray.errors import ParameterError
from distill_ray.steps.tasks import ChatGeneration

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How are you?"},
]


def test_the_conversation_is_asked_as_it_is(echo: Any) -> None:
    task = ChatGeneration(name="chat", llm=echo())
    (row,) = next(task.process([{"messages": TALK}]))
    assert row["generation"] == "How are you? 0"
    assert row["model_name"] == "echo"
    assert row["distilabel_metadata"]["raw_input_chat"] == TALK
    assert (task.inputs, task.outputs) == (["messages"], ["generation", "model_name"])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (TALK[:2], "the last of `messages` must be from the user"),
        ([], "must be a list of messages with one at least"),
        ("Hi", "must be a list of messages"),
        (None, "must be a list of messages"),
        ([{"role": "user"}], r"`messages\[0\]` must have `role` and `content`"),
    ],
)
def test_what_is_no_conversation_is_named(echo: Any, messages: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=f"Task 'chat', row 0 of the batch: .*{message}"):
        next(ChatGeneration(name="chat", llm=echo()).process([{"messages": messages}]))
