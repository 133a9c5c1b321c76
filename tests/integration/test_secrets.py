"""Secrets reach no key, file, log or report: planted wherever one may be, and looked for everywhere."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr

from distill_ray.errors import DistillRayError, ParameterError, StepError, StorageError
from distill_ray.models import LLM, OpenAILLM
from distill_ray.observe.plan_table import plan_record, plan_table
from distill_ray.pipeline import Pipeline
from distill_ray.pipeline.running import Engine
from distill_ray.steps import LoadDataFromDicts, LoadDataFromFileSystem, Step, StepInput, StepOutput
from distill_ray.steps.tasks import TextGeneration
from distill_ray.storage import open_storage
from distill_ray.types import RuntimeParameter, Unsigned
from tests.faulty_proxy import FaultyProxy
from tests.s3_server import S3Root

MARK = "hunter2"
"""Part of every secret here."""


def secret(kind: str) -> str:
    return f"{MARK}-{kind}-\"'\\é"


class Account(BaseModel):
    user: str = "me"
    password: SecretStr = SecretStr(secret("nested"))


class Keyed(Step):
    """Holds a secret wherever a parameter may be one, and says them all when it fails."""

    fails: RuntimeParameter[bool] = False
    text: SecretStr = SecretStr(secret("text"))
    raw: SecretBytes = SecretBytes(secret("raw").encode())
    wrapped: Secret[str] = Secret(secret("wrapped"))
    optional: SecretStr | None = SecretStr(secret("optional"))
    listed: Unsigned[list[SecretStr]] = Field(default=[SecretStr(secret("listed"))])
    mapped: Unsigned[dict[str, Any]] = Field(default={"a": {"b": [SecretStr(secret("mapped"))]}})
    account: Unsigned[Account] = Account()
    api_key: Unsigned[str] = secret("plain")
    access_token: Unsigned[str | None] = Field(default=secret("excluded"), exclude=True, repr=False)
    options: Unsigned[dict[str, Any]] = Field(
        default={"client": {"token": secret("options")}, "anon": "yes"}, exclude=True, repr=False
    )
    given: RuntimeParameter[SecretStr | None] = None
    hf_token: Unsigned[str] = "hunter2-in-source"
    password: SecretStr = SecretStr("hunter2-in-source-too")
    url: Unsigned[str] = f"https://me:{MARK}-password@host/x?sig={MARK}-query"

    @property
    def inputs(self) -> list[str]:
        return ["n"]

    @property
    def outputs(self) -> list[str]:
        return ["made"]

    def process(self, inputs: StepInput) -> StepOutput:
        if self.fails:
            held: list[Any] = [
                self.text.get_secret_value(),
                self.raw.get_secret_value(),
                self.wrapped.get_secret_value(),
                self.optional.get_secret_value() if self.optional else "",
                self.listed[0].get_secret_value(),
                self.mapped["a"]["b"][0].get_secret_value(),
                self.account.password.get_secret_value(),
                self.api_key,
                self.access_token,
                self.options,
                self.given.get_secret_value() if self.given else "",
                self.url,
                self.hf_token,
                self.password.get_secret_value(),
                os.environ.get("OUR_API_KEY"),
            ]
            raise ValueError("; ".join(map(str, held))) from KeyError(held)
        yield [{**row, "made": len(self.text.get_secret_value())} for row in inputs]


class Telling(LLM):
    """A model that says its key when it fails."""

    api_key: SecretStr = SecretStr(secret("model"))
    fails: Unsigned[RuntimeParameter[bool]] = False

    @property
    def model_name(self) -> str:
        return "telling"

    def generate(self, inputs: Any, num_generations: int = 1, **_: Any) -> Any:
        if self.fails:
            raise ValueError(f"refused {self.api_key.get_secret_value()}")
        return [{"generations": ["yes"] * num_generations} for _ in inputs]


@pytest.fixture(autouse=True)
def _in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_API_KEY", f"{MARK}-environment")
    monkeypatch.setenv("OPENAI_API_KEY", f"{MARK}-openai")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def rows_url(tmp_path: Path) -> Iterator[str]:
    """A file of rows behind a signed URL."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"n": 1, "instruction": "Is it?"}\n')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/rows.jsonl?X-Goog-Signature={MARK}-signed"
        server.shutdown()


def declare(root: Path, rows_url: str, on_error: Literal["raise", "skip", "null"] = "raise") -> Pipeline:
    options = {"token": secret("storage")}
    with Pipeline(name="keyed", cache_dir=root, storage_options=options) as pipeline:
        load = LoadDataFromFileSystem(
            name="load",
            data_files=rows_url,
            filetype="jsonl",
            storage_options={"headers": {"Authorization": f"Bearer {MARK}-loader"}},
        )
        load >> Keyed(name="keyed", on_error=on_error) >> TextGeneration(name="ask", llm=Telling())
    return pipeline


PARAMETERS = {"keyed": {"given": secret("given")}}


def check_nowhere(*texts: str, folders: tuple[Path, ...] = ()) -> None:
    """Look for any secret in texts, and in all files as they are and as their readers see them."""
    for text in texts:
        at = text.find(MARK)
        assert at < 0, f"...{text[max(0, at - 300) : at + 100]}..."
    for folder in folders:
        for path in folder.rglob("*"):
            assert MARK not in path.name
            if path.is_file():
                data = path.read_bytes()
                assert MARK.encode() not in data, f"{path}: {data[:5000]!r}"
                if path.suffix == ".parquet":
                    check_nowhere(seen_in(data))


def seen_in(part: bytes) -> str:
    file = pq.ParquetFile(io.BytesIO(part))
    footer: Mapping[bytes, bytes] = file.metadata.metadata or {}
    return f"{file.read().to_pylist()}{footer}{file.schema_arrow.metadata}"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """All that was logged and printed so far."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "distill_ray")  # what fsspec and aiohttp say at this level is their own
    return lambda: "\n".join([caplog.text, *capfd.readouterr()])


def test_what_succeeds_tells_no_secret(
    cache_root: Path, rows_url: str, tmp_path: Path, engine: Engine, said: Any
) -> None:
    pipeline = declare(cache_root, rows_url)
    plan = pipeline.plan(PARAMETERS)
    distiset = pipeline.run(PARAMETERS, engine=engine)
    assert distiset["default"]["train"][0]["generation"] == "yes"
    distiset.save_to_disk(str(tmp_path / "saved"))
    for name in ("pipeline.yaml", "pipeline.json"):
        pipeline.save(tmp_path / "described" / name)
    check_nowhere(
        said(),
        distiset.report.model_dump_json(),
        repr(distiset),
        plan_table(plan),
        json.dumps(plan_record(plan)),
        repr(plan),
        repr(pipeline),
        *map(repr, pipeline.graph.steps.values()),
        pipeline.draw(),
        json.dumps(pipeline.dump()),
        said(),
        folders=(cache_root, tmp_path / "saved", tmp_path / "described"),
    )


@pytest.mark.parametrize("failing", ["keyed", "ask"])
def test_what_fails_tells_no_secret(
    cache_root: Path, rows_url: str, engine: Engine, said: Any, failing: str
) -> None:
    parameters: dict[str, dict[str, Any]] = {
        "keyed": {**PARAMETERS["keyed"], "fails": failing == "keyed"},
        "ask": {"llm": {"fails": failing == "ask"}},
    }
    with pytest.raises(StepError) as failed:
        declare(cache_root, rows_url).run(parameters, engine=engine)
    assert "**********" in str(failed.value)
    (record,) = cache_root.glob("runs/*/run.json")
    assert json.loads(record.read_text())["status"] == "failed"
    check_nowhere(said(), "".join(traceback.format_exception(failed.value)), folders=(cache_root,))


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_a_row_that_failed_is_listed_without_secrets(
    cache_root: Path, rows_url: str, engine: Engine, said: Any, on_error: Any
) -> None:
    parameters = {"keyed": {**PARAMETERS["keyed"], "fails": True}}
    pipeline = declare(cache_root, rows_url, on_error)
    distiset = pipeline.run(parameters, engine=engine)
    report = distiset.report.model_dump_json()
    assert "ValueError: **********" in report
    check_nowhere(said(), report, folders=(cache_root,))


def test_what_changed_is_explained_without_secrets(cache_root: Path, rows_url: str, said: Any) -> None:
    declare(cache_root, rows_url).run(PARAMETERS, engine="inline")
    pipeline = declare(cache_root, rows_url)
    pipeline.graph.steps["keyed"].input_mappings = {"n": "instruction"}
    explanation = pipeline.explain(parameters=PARAMETERS)
    assert "input_mappings" in repr(explanation)
    check_nowhere(said(), repr(explanation), folders=(cache_root,))


def test_a_server_that_is_not_there_is_named_without_its_key(cache_root: Path, said: Any) -> None:
    with Pipeline(name="served") as pipeline:
        llm = OpenAILLM(
            model="m",
            base_url="http://127.0.0.1:1/v1",
            default_headers={"X-Key": SecretStr(secret("header"))},
            max_retries=0,
        )
        LoadDataFromDicts(data=[{"instruction": "?"}]) >> TextGeneration(llm=llm)
    with pytest.raises(StepError) as failed:
        pipeline.run(engine="inline")
    check_nowhere(said(), "".join(traceback.format_exception(failed.value)), repr(llm), folders=(cache_root,))


def test_a_file_that_is_not_there_is_named_without_its_signature(rows_url: str) -> None:
    with Pipeline(name="absent") as pipeline:
        LoadDataFromFileSystem(data_files=rows_url.replace("rows", "absent"), filetype="jsonl")
    with pytest.raises(DistillRayError) as failed:
        pipeline.run(engine="inline")
    assert "absent.jsonl" in str(failed.value)
    check_nowhere("".join(traceback.format_exception(failed.value)))


@pytest.mark.parametrize(
    "declare_wrongly",
    [
        lambda: Keyed(text=[secret("x")]),
        lambda: Keyed(listed=[{"x": secret("x")}]),
        lambda: Keyed(account={"password": [secret("x")]}),
        lambda: Keyed(account=secret("x")),
        lambda: Keyed(api_key=[secret("x")]),
        lambda: Keyed(options=secret("x")),
        lambda: OpenAILLM(model="m", api_key=[secret("x")]),
        lambda: OpenAILLM(model="m", default_headers={"x": [secret("x")]}),
        lambda: OpenAILLM(model="m", base_url=f"https://me:{MARK}@host/v1"),
        lambda: setattr(Keyed(), "text", [secret("x")]),
        lambda: open_storage(f"sftp://me:{MARK}@host/cache"),
    ],
)
def test_a_value_that_is_refused_is_not_shown_where_it_may_be_a_secret(declare_wrongly: Any) -> None:
    with pytest.raises((ParameterError, StorageError)) as refused:
        declare_wrongly()
    check_nowhere("".join(traceback.format_exception(refused.value)))


class Signed(Step):
    headers: dict[str, SecretStr]

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def test_a_secret_in_a_signed_collection_does_not_count_and_is_not_kept(cache_root: Path) -> None:
    decisions = []
    for text in ("x", "y"):
        with Pipeline(name="signed") as pipeline:
            LoadDataFromDicts(data=[{"n": 1}]) >> Signed(
                name="signed", headers={"a": SecretStr(secret(text))}
            )
        decisions.append(pipeline.plan()["signed"].decision)
        pipeline.run(engine="inline")
        check_nowhere(json.dumps(pipeline.dump()), folders=(cache_root,))
    assert decisions == ["compute", "hit"]


def test_a_store_that_refuses_its_credentials_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_RAY_RETRY_SECONDS", "0")
    for options in ({"token": secret("token")}, {"token": {"private_key": secret("token")}}):
        storage = open_storage("gs://bucket/cache", options)
        with pytest.raises(StorageError) as refused:
            storage.read("object")
        check_nowhere(str(refused.value), repr(storage))


def test_what_a_store_answers_is_told_without_the_credentials_that_it_repeats(
    s3_root: S3Root, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    monkeypatch.setenv("DISTILL_RAY_RETRY_SECONDS", "0")
    proxy = FaultyProxy(s3_endpoint)
    proxy.start()
    proxy.refuse(lambda _: True, 403, f"no such secret: {secret('s3')}")
    try:
        options = {**s3_root.storage_options, "endpoint_url": proxy.url, "secret": secret("s3")}
        storage = open_storage(s3_root.url, options)
        for act in (storage.read, storage.sizes, lambda path: storage.publish(path, b"")):
            with pytest.raises(StorageError) as refused:
                act("object")
            check_nowhere(said(), "".join(traceback.format_exception(refused.value)), repr(storage))
    finally:
        proxy.close()


def test_a_root_is_used_without_its_credentials_being_kept(
    s3_root: S3Root, tmp_path: Path, said: Any
) -> None:
    options = {"s3": {**s3_root.storage_options, "secret": secret("s3")}}
    with Pipeline(name="bucketed", cache_dir=s3_root.url, storage_options=options) as pipeline:
        LoadDataFromDicts(data=[{"n": 1}]) >> Signed(headers={})
    distiset = pipeline.run(engine="inline")
    pipeline.save(tmp_path / "pipeline.yaml")
    from s3fs import S3FileSystem

    S3FileSystem(skip_instance_cache=True, **s3_root.storage_options).get(
        s3_root.url, str(tmp_path / "bucket"), recursive=True
    )
    assert list(tmp_path.glob("bucket/steps/*/parts/*.parquet"))
    check_nowhere(said(), distiset.report.model_dump_json(), repr(pipeline), folders=(tmp_path,))
