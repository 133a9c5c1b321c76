"""``distill-ray demo``: a small language model answers a small data set; run it again and the cache does."""

from __future__ import annotations

import click

from distill_ray.cli.run import print_result
from distill_ray.cli.script import common_options, parse_parameters
from distill_ray.pipeline import Pipeline

QUESTIONS = (
    "How much is 2+2?",
    "What is the capital of France?",
    "Name three primary colours.",
    "Write one sentence about the sea.",
    "What do bees make?",
    "Which planet is closest to the sun?",
)


def demo_pipeline(cache_dir: str | None = None) -> Pipeline:
    """Six questions and a model of 135 million parameters."""
    from distill_ray.models import LlamaCppLLM
    from distill_ray.steps import LoadDataFromDicts, StepResources
    from distill_ray.steps.tasks import TextGeneration

    with Pipeline(name="demo", cache_dir=cache_dir) as pipeline:
        load_data = LoadDataFromDicts(
            name="load_data", data=[{"instruction": question} for question in QUESTIONS]
        )
        generation = TextGeneration(
            name="generation",
            llm=LlamaCppLLM(model="smollm2-135m-instruct", generation_kwargs={"max_new_tokens": 48}),
            input_batch_size=2,
            resources=StepResources(replicas=1, cpus=1),
        )
        load_data >> generation
    return pipeline


@click.command()
@common_options
def demo(as_json: bool, cache_dir: str | None, no_cache: bool, params: tuple[str, ...]) -> None:
    """Let a small language model answer six questions; the second run comes from the cache.

    \b
    Example:
      distill-ray demo && distill-ray demo
    """
    pipeline = demo_pipeline(cache_dir)
    distiset = pipeline.run(parse_parameters(pipeline, params), use_cache=not no_cache)
    if not as_json:
        for row in distiset["default"]["train"]:
            click.echo(f"Q: {row['instruction']}\nA: {str(row['generation']).strip()}\n")
    print_result(distiset, as_json=as_json)
    report = distiset.report
    if report is not None and not as_json:
        known = (
            "Nothing was computed: every row came from the cache."
            if report.rows_computed == 0
            else (f"{report.rows_computed} rows were computed. Run it again: they come from the cache.")
        )
        click.echo(f"{known} ({report.seconds:.1f} s)")
