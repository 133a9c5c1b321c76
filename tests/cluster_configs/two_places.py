"""The user's script that is run on the clusters: its rows say on which node they were made."""

from __future__ import annotations

import json
import os
import time

import ray

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepInput, StepOutput, StepResources, step


@step(inputs=["text"], outputs=["node", "gpu"], row_wise=True)
def place(inputs: StepInput) -> StepOutput:
    time.sleep(float(os.environ.get("SECONDS_A_ROW", "0")) * len(inputs))
    node = ray.get_runtime_context().get_node_id()
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    yield [{**row, "node": node, "gpu": gpu} for row in inputs]


with Pipeline(name="two_places") as pipeline:
    load = LoadDataFromDicts(name="load", data=[{"text": str(n)} for n in range(40)])
    on_cpu = place(name="on_cpu", input_batch_size=4, resources=StepResources(cpus=1))
    on_gpu = place(name="on_gpu", input_batch_size=4, resources=StepResources(gpus=1, accelerator_type="L4"))
    load >> [on_cpu, on_gpu]

if __name__ == "__main__":
    distiset = pipeline.run()
    print("ROWS", json.dumps({leaf: splits["train"].to_list() for leaf, splits in distiset.items()}))
