"""Runs scripts of an edited project, each on the cache root ``SCRIPT.cache``, and then on an empty one.

    python measure_edits.py ENGINE SCRIPT...

Prints for each script, as JSON, what was done the first time, how many of its rows are not those of the
second time, and a digest of these. The script says what it does in ``work.log`` beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distill_ray.cli.script import load_pipeline
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine


def run(pipeline: Pipeline, root: str, engine: Engine) -> list[dict[str, Any]]:
    pipeline.cache_dir = root
    return pipeline.run(engine=engine)["default"]["train"].to_list()


def work_in(log: Path) -> Counter[str]:
    work: Counter[str] = Counter()
    for line in log.read_text(encoding="utf-8").splitlines():
        name, count = line.split()
        work[name] += int(count)
    return work


def measure(script: str, engine: Engine) -> dict[str, Any]:
    log = Path(script).with_name("work.log")
    log.write_text("", encoding="utf-8")
    pipeline = load_pipeline(script)
    warm = run(pipeline, f"{script}.cache", engine)
    work = work_in(log)
    cold = run(pipeline, f"memory://{script}", "inline")
    differing = sum(one != other for one, other in zip_longest(warm, cold))
    digest = hashlib.sha256(json.dumps(cold, sort_keys=True).encode()).hexdigest()
    return {"work": work, "wrong_rows": differing, "digest": digest}


if __name__ == "__main__":
    chosen: Engine = "ray" if sys.argv[1] == "ray" else "inline"
    print(json.dumps([measure(script, chosen) for script in sys.argv[2:]]))
