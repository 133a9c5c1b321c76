"""Answers the customers of a shop."""

from pathlib import Path

from distill_ray.pipeline import Pipeline
from distill_ray.steps import LoadDataFromDicts, StepResources
from shop.asking import Ask, Oracle
from shop.steps import Bounds, Clean, Keep, Mark, Pack, Rank, Rules, make_tag

LOG = str(Path(__file__).with_name("work.log"))

rows = [
    {"id": n, "text": f"Order {n} where is THE parcel", "title": f"Parcel {n} got lost"} for n in range(2000)
]

with Pipeline(name="shop", enable_metadata=True) as pipeline:
    load = LoadDataFromDicts(name="load", data=rows, batch_size=200)
    clean = Clean(name="clean", log=LOG)
    mark = Mark(name="mark", log=LOG)
    ask = Ask(
        name="ask",
        log=LOG,
        template="{{ clean }}",
        columns="clean",
        llm=Oracle(log=LOG, generation_kwargs={"temperature": 0.7, "max_new_tokens": 8, "seed": 1}),
    )
    tag = make_tag("!")(name="tag", log=LOG)
    keep = Keep(name="keep", log=LOG)
    pack = Pack(name="pack", log=LOG)
    rank = Rank(name="rank", log=LOG)
    load >> clean >> mark >> ask >> tag >> keep >> pack >> rank
