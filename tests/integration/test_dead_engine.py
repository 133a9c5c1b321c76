"""A model whose engine has died is of no use to anyone: its replica is replaced, whatever `on_error` says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import PrivateAttr

from distill_ray.distiset import Distiset
from distill_ray.errors import ProcessUnusableError, StepError
from distill_ray.models import AsyncLLM, ChatType, GenerateOutput
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts
from distill_ray.steps.tasks import TextGeneration
from distill_ray.typing import StepInput, StepOutput, Unsigned


class Mortal(AsyncLLM):
    """Its engine dies of the tenth request, once."""

    folder: Unsigned[str]

    _dead: bool = PrivateAttr(default=False)

    @property
    def model_name(self) -> str:
        return "mortal"

    async def agenerate(  # type: ignore[override]
        self,
        input: ChatType,  # noqa: A002
        num_generations: int = 1,
    ) -> GenerateOutput:
        self._live_through(input[-1]["content"])
        return {"generations": [f"answer to {input[-1]['content']}"] * num_generations}

    def _live_through(self, text: str) -> None:
        grave = Path(self.folder, "died")
        if self._dead or (text == "9" and not grave.exists()):
            self._dead = True
            grave.touch()
            raise ProcessUnusableError("the engine is dead")
        Path(self.folder, f"{os.getpid()}.pid").touch()


class Ask(TextGeneration):
    """One step: quicker to start than the three that a task is else."""

    def process(self, inputs: StepInput) -> StepOutput:
        yield from super().process(inputs)


def run(folder: Path, engine: Engine) -> Distiset:
    with Pipeline(name="mortal") as pipeline:
        rows = LoadDataFromDicts(data=[{"instruction": str(n)} for n in range(30)])
        task = Ask(name="task", llm=Mortal(folder=str(folder)), input_batch_size=4, on_error="null")
        rows >> task
    return pipeline.run(engine=engine)


def test_its_replica_is_replaced_and_no_row_is_lost(local_ray: None, tmp_path: Path) -> None:
    out = run(tmp_path, "ray")["default"]["train"]
    assert [row["generation"] for row in out] == [f"answer to {n}" for n in range(30)]
    assert (tmp_path / "died").exists()
    assert len(list(tmp_path.glob("*.pid"))) == 2


def test_where_there_is_no_other_process_the_run_ends_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"Step 'task'.*the engine is dead"):
        run(tmp_path, "inline")
