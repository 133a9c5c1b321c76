"""`Pipeline`: collects steps, and hands the work to those who do it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextvars import Token
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Self

from distill_ray.errors import DistillRayError, GraphError, ParameterError
from distill_ray.graph import Graph, LoadGroups, check, mermaid, stages_of
from distill_ray.pipeline.parameters import check_given, with_parameters
from distill_ray.pipeline.saving import dump_pipeline, load_pipeline, read_json, read_yaml, write_tree
from distill_ray.steps.base import ACTIVE_REGISTRY, BaseStep, StepRegistry, label_of
from distill_ray.steps.routing import RoutingBatchFunction
from distill_ray.types import METADATA

if TYPE_CHECKING:
    from distill_ray.cache.store import CacheStore
    from distill_ray.distiset import Distiset
    from distill_ray.events import Listener
    from distill_ray.explain.explanation import Explanation
    from distill_ray.pipeline.guarding import OnBusy
    from distill_ray.pipeline.running import CacheDir, CacheScope, Engine, RunRequest
    from distill_ray.plan import Plan

Parameters = Mapping[str, Mapping[str, Any]]

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".svg", ".pdf", ".gif"})
"""What distilabel writes; a file of text under such a name could not be opened."""


class Pipeline:
    """A DAG of steps, with a name that its records are kept under.

    Steps that are created inside its ``with`` block belong to it; ``>>`` connects them::

        with Pipeline(name="answers") as pipeline:
            load_data = LoadDataFromDicts(data=[{"instruction": "How much is 2+2?"}])
            generation = TextGeneration(llm=LlamaCppLLM(model="smollm2-135m-instruct"))
            load_data >> generation

        distiset = pipeline.run()

    Args:
        name: unique among your pipelines; without one it is made from the steps' signatures.
        description: for readers.
        cache_dir: path or fsspec URL of the cache root; by default ``$DISTILL_RAY_CACHE_DIR``, else
            ``~/.cache/distill_ray``. Of several, all are read, in this order, and the first is written to.
        enable_metadata: keep the column ``distilabel_metadata`` in the Distiset.
        requirements: packages that the steps need, as pip writes them; for readers of a saved pipeline.
        storage_options: for the cache roots' filesystem (credentials); never written anywhere.
        cache_scope: ``"shared"`` by all pipelines that use the cache, or kept to this ``"pipeline"``, which
            then needs a name: it neither finds what others computed nor do they find what it does.
        cache_read_only: write nothing into the cache, and so compute nothing: what is not there is an error.
    """

    def __init__(
        self,
        name: str | None = None,
        description: str | None = None,
        cache_dir: CacheDir | None = None,
        enable_metadata: bool = False,
        requirements: list[str] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache_scope: CacheScope = "shared",
        cache_read_only: bool = False,
    ) -> None:
        self._name = _as_text(name)
        self.description = description
        self.cache_dir = cache_dir
        self.enable_metadata = enable_metadata
        self.requirements = list(requirements or [])
        self.storage_options = dict(storage_options or {})
        self.cache_scope = cache_scope
        self.cache_read_only = cache_read_only
        self.graph = Graph()
        self._outer: list[Token[StepRegistry | None]] = []

    def __enter__(self) -> Self:
        self._outer.append(ACTIVE_REGISTRY.set(self))
        return self

    def __exit__(self, *exception: object) -> None:
        ACTIVE_REGISTRY.reset(self._outer.pop())

    def __repr__(self) -> str:
        return f"Pipeline(name={self.name!r}, steps={list(self.graph.steps)})"

    @property
    def name(self) -> str:
        """The name given, or one made from the steps."""
        from distill_ray.plan import default_name

        return self._name or default_name(self.aggregated_steps_signature)

    @property
    def signature(self) -> str:
        """Digest of the steps' names and connections."""
        return self.graph.signature()

    @property
    def aggregated_steps_signature(self) -> str:
        """Digest of the signatures of all steps."""
        from distill_ray.plan import aggregated_signature, sign

        return aggregated_signature(sign(self.graph))

    def add_step(self, step: BaseStep) -> None:
        """Take a step in; steps do this by themselves."""
        step.bind(self, self.graph.add(step))

    def connect_steps(
        self, upstream: BaseStep, *downstream: BaseStep, routing: RoutingBatchFunction | None = None
    ) -> None:
        """Let rows flow into each of ``downstream``, or each batch into those chosen; ``>>`` does this."""
        for step in (upstream, *downstream):
            if step.pipeline is not self:
                raise GraphError(_not_in(self, step))
        self.graph.connect_all(label_of(upstream), map(label_of, downstream), routing)

    def run(
        self,
        parameters: Parameters | None = None,
        load_groups: LoadGroups | None = None,
        use_cache: bool = True,
        *,
        dataset: Any = None,
        dataset_batch_size: int = 50,
        engine: Engine = "ray",
        progress: Literal["auto", "none"] = "auto",
        verify: float = 0.0,
        on_busy: OnBusy = "wait",
        wait_for_resources: float | None = None,
        profile: bool | str | os.PathLike[str] = False,
    ) -> Distiset:
        """Compute what is not known yet, and return the leaves' rows.

        Args:
            parameters: runtime parameters, ``{step name: {parameter: value}}``, nested where a step holds
                a model: ``{"generation": {"llm": {"generation_kwargs": {"temperature": 0.3}}}}``.
            load_groups: stages to run in: lists of steps to run together, or ``"sequential_step_execution"``.
            use_cache: False computes every step anew (and stores it).
            dataset: rows for the steps that nothing flows into: dicts, a dataset, data frame or Arrow table.
            dataset_batch_size: rows in each batch of ``dataset``.
            engine: ``"ray"``, or ``"inline"`` to run in this process, where breakpoints work.
            progress: how to show progress on standard error.
            verify: share of reused units to compute again and compare, 0 to 1: the report says what differs.
            on_busy: what to do about steps that another run computes: ``"wait"`` and take over what it stores
                as it comes, ``"compute"`` them too, or ``"fail"``.
            wait_for_resources: seconds to wait for a node that can hold what a step declares; by default
                ``$DISTILL_RAY_WAIT_FOR_RESOURCES``, else what no node has is an error at once.
            profile: a file for a Chrome trace, named ``*.json``; True: ``trace-<run>.json`` in this folder.

        Raises:
            GraphError, ParameterError: the pipeline, or a parameter, is declared wrongly.
            StepError: a step raised. What was finished is stored: the next run goes on from there.
            ResourceError: no node has what a step declares, or came to have it in time; likewise.
            RunInterruptedError: the run was stopped; likewise.
        """
        graph = _prepared(self.graph, parameters, dataset, dataset_batch_size)
        stages = {} if load_groups is None else stages_of(graph, load_groups)
        listeners = _listeners(progress, engine, profile)
        settings = {"use_cache": use_cache, "engine": engine, "verify": verify, "on_busy": on_busy}
        where = {"stages": stages, "wait_for_resources": wait_for_resources}
        return _run(self, _request(self, graph, listeners=listeners, **settings, **where))

    def dry_run(
        self,
        parameters: Parameters | None = None,
        batch_size: int = 1,
        dataset: Any = None,
        *,
        engine: Engine = "ray",
    ) -> Distiset:
        """Run one batch of each generator step through the pipeline; reads and writes no cache.

        Args:
            parameters: as for `run`.
            batch_size: rows in that batch.
            dataset: as for `run`.
            engine: as for `run`.
        """
        graph = _prepared(self.graph, parameters, dataset, batch_size)
        sources = [name for name, step in graph.steps.items() if step.is_generator]
        graph = with_parameters(graph, {name: {"batch_size": batch_size} for name in sources})
        with tempfile.TemporaryDirectory(prefix="distill_ray-dry-run-") as folder:
            request = _request(self, graph, engine=engine, max_batches=1)
            elsewhere = replace(request, cache_dir=folder, cache_scope="shared", cache_read_only=False)
            return _run(self, elsewhere).in_memory()

    def plan(
        self,
        parameters: Parameters | None = None,
        *,
        use_cache: bool = True,
        dataset: Any = None,
        dataset_batch_size: int = 50,
    ) -> Plan:
        """Say what `run` would do with the same arguments, and why, without running anything."""
        return planned(self, parameters, use_cache, dataset, dataset_batch_size)[0]

    def explain(self, step: str | None = None, **arguments: Any) -> Explanation:
        """Say at length, of all steps or one, why `run` would compute what it would and what it would find.

        Takes further ``arguments`` as `plan` does, and reads more of the cache; runs nothing.
        """
        from distill_ray.pipeline.explaining import explain_plan

        return explain_plan(*planned(self, **arguments), step)

    def dump(self) -> dict[str, Any]:
        """The pipeline as a tree of plain values, which `from_dict` reads; secrets are left out."""
        described = {
            "name": self._name,
            "description": self.description,
            "enable_metadata": self.enable_metadata,
            "requirements": list(self.requirements),
        }
        return dump_pipeline(described, self.graph)

    def save(
        self,
        path: str | os.PathLike[str],
        format: Literal["json", "yaml"] | None = None,  # noqa: A002 - distilabel's name
    ) -> None:
        """Write the pipeline to a file that `from_yaml` or `from_json` reads.

        Args:
            path: the file; its folder is made where there is none.
            format: by default YAML where the file's name ends with ``.yaml`` or ``.yml``, else JSON.
        """
        write_tree(self.dump(), Path(path), as_json=format == "json" if format else None)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **options: Any) -> Self:
        """Make the pipeline of `dump` again; ``options`` are given to `Pipeline`.

        Raises:
            GraphError: the tree is no saved pipeline, or a class that it names cannot be imported.
        """
        described, graph = load_pipeline(tree)
        pipeline = cls(**{**described, **options})
        pipeline.graph = graph
        for name, step in graph.steps.items():
            step.bind(pipeline, name)
        return pipeline

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Read a pipeline that `save` wrote as YAML."""
        return cls.from_dict(read_yaml(Path(path)), **options)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Read a pipeline that `save` wrote as JSON."""
        return cls.from_dict(read_json(Path(path)), **options)

    def draw(
        self,
        path: str | os.PathLike[str] | None = None,
        top_to_bottom: bool = False,
        show_edge_labels: bool = True,
    ) -> str:
        """Return the graph as Mermaid text; write it to ``path``, and show a picture on a terminal.

        Args:
            path: a file for the text, such as ``pipeline.mmd``.
            top_to_bottom: let the graph flow downwards instead of to the right.
            show_edge_labels: write the columns that a step makes at the arrows that leave it.

        Raises:
            ParameterError: the file's name is that of a picture.
        """
        text = mermaid(self.graph, top_to_bottom=top_to_bottom, show_edge_labels=show_edge_labels)
        if path is not None:
            _write_drawing(Path(path), text)
        from distill_ray.observe.picture import show

        show(self.graph)
        return text


def _write_drawing(path: Path, text: str) -> None:
    if path.suffix.lower() in _PICTURES:
        raise ParameterError(f"draw() writes Mermaid text, no picture: name '{path}' with .mmd or .md.")
    path.write_text(text, encoding="utf-8")


def _listeners(progress: str, engine: Engine, profile: bool | str | os.PathLike[str]) -> tuple[Listener, ...]:
    """Who shows a run's events, or draws them."""
    from distill_ray.observe.profile import make_profile
    from distill_ray.observe.progress import make_progress

    shown = make_progress(progress, redraw=engine != "inline")
    trace = make_profile(profile, silent=progress == "none")
    return (shown,) if trace is None else (shown, trace)


def _not_in(pipeline: Pipeline, step: BaseStep) -> str:
    return (
        f"Step '{label_of(step)}' is not in {pipeline!r}: create it inside the same "
        "`with Pipeline(...) as pipeline:` block, or with `pipeline=pipeline`."
    )


def _prepared(graph: Graph, parameters: Parameters | None, dataset: Any, dataset_batch_size: int) -> Graph:
    """The graph that a run with these arguments has, checked."""
    if dataset is not None:
        from distill_ray.pipeline.dataset import source_step

        graph = graph.with_source("dataset", source_step(dataset, dataset_batch_size))
    graph = with_parameters(graph, parameters or {})
    check(graph)
    check_given(graph)
    return graph


def _as_text(name: str | None) -> str | None:
    """Refuse a name that no record can hold."""
    try:
        str.encode(name or "")
    except (TypeError, UnicodeEncodeError) as error:
        raise ParameterError(
            f"The name of a pipeline must be a text, and not {name!r:.200}: {error}."
        ) from error
    return name


def planned(
    pipeline: Pipeline,
    parameters: Parameters | None = None,
    use_cache: bool = True,
    dataset: Any = None,
    dataset_batch_size: int = 50,
) -> tuple[Plan, CacheStore]:
    """What `Pipeline.plan` gives, and the cache that it was made from."""
    from distill_ray.pipeline.running import open_store, plan_run

    graph = _prepared(pipeline.graph, parameters, dataset, dataset_batch_size)
    request = _request(pipeline, graph, use_cache=use_cache)
    store = open_store(request)
    return plan_run(request, store), store


def _request(pipeline: Pipeline, graph: Graph, **options: Any) -> RunRequest:
    from distill_ray.pipeline.running import RunRequest

    return RunRequest(
        pipeline._name,  # noqa: SLF001 - its own module
        graph,
        cache_dir=pipeline.cache_dir,
        cache_scope=pipeline.cache_scope,
        cache_read_only=pipeline.cache_read_only,
        storage_options=pipeline.storage_options,
        **options,
    )


def _run(pipeline: Pipeline, request: RunRequest) -> Distiset:
    from distill_ray.distiset import Distiset, PipelineOrigin
    from distill_ray.pipeline.running import run

    try:
        result = run(request)
    except DistillRayError as error:
        # It says what happened and what to do: the way there through the engine tells its reader nothing.
        raise error.with_traceback(None) from error.__cause__
    return Distiset.from_run(
        result.store,
        result.leaves,
        report=result.report,
        origin=PipelineOrigin.of(request.graph, result.plan.pipeline, pipeline.description),
        hidden=() if pipeline.enable_metadata else (METADATA,),
    )
