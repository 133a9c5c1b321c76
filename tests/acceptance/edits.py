"""Edits to the project in `shop_project`, and what must be computed after each: the matrix of docs/cache.md.

The project loads 2,000 rows and takes them through a chain of nine kinds of work::

    load >> clean >> mark >> ask (render, llm, read) >> tag >> keep >> pack >> rank

``keep`` leaves a quarter of them out; ``pack`` is a plain step, ``rank`` a global one, and all others are
row-wise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ROWS = 2_000
KEPT = 1_500
WORK = ("clean", "mark", "render", "llm", "read", "tag", "keep", "pack", "rank")

SCRIPT, STEPS, WORDS = "pipeline.py", "shop/steps.py", "shop/words.py"
ASKING, BASE = "shop/asking.py", "shop/base.py"

Files: TypeAlias = Mapping[str, str]
Change: TypeAlias = Callable[[Files], Files]

_FOLDER = Path(__file__).with_name("shop_project")

PROJECT: Files = {
    path.relative_to(_FOLDER).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(_FOLDER.rglob("*.py"))
}


@dataclass(frozen=True)
class Edit:
    """A change to the project.

    Attributes:
        name: what is edited.
        change: makes it.
        why: what must be computed, and why, for the reader of the table.
        work: rows that each kind of work must be done for; of ``llm`` answers asked for.
        same_rows: whether the pipeline gives the same rows as before.
    """

    name: str
    change: Change
    why: str
    work: Mapping[str, int]
    same_rows: bool = False

    def files(self) -> Files:
        """The project after the edit."""
        return self.change(PROJECT)

    @property
    def is_of_the_script(self) -> bool:
        """Whether no other file changes."""
        files = self.files()
        return all(files[path] == text for path, text in PROJECT.items() if path != SCRIPT)


def replaced(path: str, *pairs: tuple[str, str]) -> Change:
    """Replace texts of a file, each of which must be in it."""

    def change(files: Files) -> Files:
        text = files[path]
        for old, new in pairs:
            assert old in text, f"{path} has no {old!r}"
            text = text.replace(old, new)
        return {**files, path: text}

    return change


def script(old: str, new: str) -> Change:
    """Replace a text of the script."""
    return replaced(SCRIPT, (old, new))


def marked(parameter: str, value: str) -> Change:
    """Give the step `mark` a parameter."""
    return script('name="mark",', f'name="mark", {parameter}={value},')


def asked(parameter: str, value: str) -> Change:
    """Give the task a parameter."""
    return script('name="ask",', f'name="ask", {parameter}={value},')


def with_rows(code: str) -> Change:
    """Change the loaded rows by code that stands below them."""
    return script("\nwith Pipeline", f"\n{code}\n\nwith Pipeline")


def class_moved(files: Files) -> Files:
    """Move the class `Clean` to the end of its file."""
    before, rest = files[STEPS].split("class Clean(")
    moved, after = rest.split("\n\n\n", maxsplit=1)
    return {**files, STEPS: f"{before}{after}\n\nclass Clean({moved}\n"}


def step_removed(files: Files) -> Files:
    """Take `mark` out of the script."""
    without = "\n".join(line for line in files[SCRIPT].splitlines() if "Mark(name" not in line)
    return {**files, SCRIPT: without.replace(">> mark ", "") + "\n"}


NOTHING: Mapping[str, int] = {}
LAST = {"pack": KEPT, "rank": KEPT}
TAGGED = {"tag": ROWS, **LAST}
MARKED = {"mark": ROWS, **LAST}
TASK = {"render": ROWS, "read": ROWS}
ANSWERED = {**TASK, "llm": ROWS, **TAGGED}
CLEANED = {"clean": ROWS, "mark": ROWS, **ANSWERED}
EVERYTHING = {**CLEANED, "keep": ROWS}


def each_row(count: int, pack: int, rank: int) -> Mapping[str, int]:
    """Work where some input rows are new: the last two steps take what `keep` leaves."""
    return {**dict.fromkeys(WORK, count), "pack": pack, "rank": rank}


_NO_CODE = "nothing: it is no code"
_PARAMETER = "`mark`, and below it what takes whole rows; the model is not handed its column"
_SAME = "nothing: the same value"
_TEXT = "what reads the text, and all that reads what comes of it"

CODE = (
    Edit(
        "a comment",
        replaced(STEPS, ("# The rest is greetings.", "# Greetings are of no use.\n        # None.")),
        _NO_CODE,
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "docstrings",
        replaced(STEPS, ("Takes from a text what matters.", "Cleans."), ("Yield the rows with", "Give")),
        _NO_CODE,
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "blank lines",
        replaced(STEPS, ("        note(self.log", "\n\n        note(self.log"), ("\nimport", "\n\n\nimport")),
        _NO_CODE,
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "a class moved in its file",
        class_moved,
        "nothing: its place does not count",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "a function that no step uses",
        replaced(WORDS, ("def shorten", "def spare() -> None:\n    pass\n\n\ndef shorten")),
        "nothing: no step reaches it",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "a body",
        replaced(STEPS, ("LIMIT)} for row", 'LIMIT) + "?"} for row')),
        "the step, and what reads what it gives",
        CLEANED,
    ),
    Edit(
        "a body, with equal rows",
        replaced(STEPS, ("LIMIT)} for row", "LIMIT).strip()} for row")),
        "the step; what is below it finds equal rows",
        {"clean": ROWS},
        same_rows=True,
    ),
    Edit(
        "a helper function",
        replaced(WORDS, ('" ".join(words[:limit])', '" ".join(words[:limit]) + "."')),
        "the step that calls it, and what reads what it gives",
        CLEANED,
    ),
    Edit(
        "a constant",
        replaced(WORDS, ("LIMIT = 4", "LIMIT = 3")),
        "the step that uses it, and what reads what it gives",
        CLEANED,
    ),
    Edit(
        "a helper's constant",
        replaced(WORDS, ('STOP_WORD = "the"', 'STOP_WORD = "where"')),
        "the step that calls the helper, and what reads what it gives",
        CLEANED,
    ),
    Edit(
        "a method of a base class",
        replaced(BASE, ("return text.lower()", "return text.upper()")),
        "all steps of that class, and what reads what they give",
        EVERYTHING,
    ),
    Edit(
        "a decorated function's body",
        replaced(STEPS, ('["answer"][:6]', '["answer"][:5]')),
        "the step, and what takes whole rows",
        TAGGED,
    ),
    Edit(
        "a value that a decorated function captured",
        script('make_tag("!")', 'make_tag("?")'),
        "the step, and what takes whole rows",
        TAGGED,
    ),
    Edit(
        "a lambda that a step calls",
        replaced(WORDS, ('endswith("parcel")', 'endswith("is")')),
        "the step, and what takes whole rows",
        MARKED,
    ),
    Edit("a lambda as a parameter", marked("turn", "lambda text: text[::-1]"), _PARAMETER, MARKED),
)

PARAMETERS = (
    Edit("int: 1 -> 2", marked("count", "2"), _PARAMETER, MARKED),
    Edit("float: 1.0 -> 1.5", marked("share", "1.5"), _PARAMETER, MARKED),
    Edit(
        "float: 1.0 -> 1",
        marked("share", "1"),
        "nothing: a field of type `float` holds 1.0 either way",
        NOTHING,
        same_rows=True,
    ),
    Edit("any type: 1 -> 1.0", marked("anything", "1.0"), _PARAMETER, MARKED),
    Edit('any type: 1 -> "1"', marked("anything", '"1"'), _PARAMETER, MARKED),
    Edit("any type: 1 -> True", marked("anything", "True"), _PARAMETER, MARKED),
    Edit('str: "a-b" -> "a_b"', marked("word", '"a_b"'), _PARAMETER, MARKED),
    Edit("bool: False -> True", marked("strict", "True"), _PARAMETER, MARKED),
    Edit('None -> ""', marked("perhaps", '""'), _PARAMETER, MARKED),
    Edit('list: ["a-b"] -> ["a", "b"]', marked("names", '["a", "b"]'), _PARAMETER, MARKED),
    Edit(
        "dict: another order",
        marked("table", '{"b": {"c": [1, 2]}, "a": 1}'),
        _SAME,
        NOTHING,
        same_rows=True,
    ),
    Edit("dict: a value inside", marked("table", '{"a": 1, "b": {"c": [1, 3]}}'), _PARAMETER, MARKED),
    Edit("set: another order", marked("kinds", '{"y", "x"}'), _SAME, NOTHING, same_rows=True),
    Edit("set: a member", marked("kinds", '{"x", "z"}'), _PARAMETER, MARKED),
    Edit("a pydantic model's field", marked("rules", 'Rules(levels={"low": [1, 3]})'), _PARAMETER, MARKED),
    Edit("a dataclass's field", marked("bounds", "Bounds(high=8)"), _PARAMETER, MARKED),
    Edit(
        "a secret",
        script("Oracle(log", 'Oracle(api_key="another", log'),
        "nothing: secrets are not signed",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "a parameter marked `Unsigned`",
        script("Oracle(log", "Oracle(timeout=5.0, log"),
        "nothing: it changes no row",
        NOTHING,
        same_rows=True,
    ),
)

RUNNING = (
    Edit(
        "`resources`",
        marked("resources", "StepResources(cpus=0.5, memory=10_000_000)"),
        "nothing: it changes no row",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "`replicas`",
        asked("resources", "StepResources(replicas=2)"),
        "nothing: it changes no row",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "batch size of a row-wise step",
        marked("input_batch_size", "7"),
        "nothing: its units are rows",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "batch size of a task",
        asked("input_batch_size", "16"),
        "nothing: its units are rows",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "batch size of the loader",
        script("batch_size=200", "batch_size=64"),
        "nothing: it changes no row",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "batch size of a plain step",
        script('Pack(name="pack"', 'Pack(name="pack", input_batch_size=20'),
        "the step: its units are batches; and what takes whole rows",
        LAST,
    ),
    Edit(
        "a step renamed",
        script('name="mark"', 'name="stamp"'),
        "nothing: names are not signed",
        NOTHING,
        same_rows=True,
    ),
    Edit(
        "a task renamed",
        script('name="ask"', 'name="reply"'),
        "reading the answers: the metadata holds the name; and what takes whole rows",
        {"read": ROWS, **LAST},
    ),
    Edit("the pipeline renamed", script('name="shop"', 'name="store"'), "nothing", NOTHING, same_rows=True),
    Edit(
        "`use_cache=False` on a step",
        script('Clean(name="clean"', 'Clean(name="clean", use_cache=False'),
        "the step and all below it, as asked for",
        EVERYTHING,
        same_rows=True,
    ),
)

TASKS = (
    Edit(
        "template, same text",
        script('"{{ clean }}"', '"{{ clean | trim }}"'),
        "the task's own code; the requests are as before",
        TASK,
        same_rows=True,
    ),
    Edit(
        "template, other text",
        script('"{{ clean }}"', '"Dear shop: {{ clean }}"'),
        "all requests, and what reads the answers",
        ANSWERED,
    ),
    Edit(
        "prompt builder, same text",
        replaced(
            ASKING,
            ('chat[-1]["content"] += " please"', 'chat[-1]["content"] = f"{chat[-1][\'content\']} please"'),
        ),
        "the task's own code; the requests are as before",
        TASK,
        same_rows=True,
    ),
    Edit(
        "prompt builder, other text",
        replaced(ASKING, ('+= " please"', '+= " thanks"')),
        "all requests, and what reads the answers",
        ANSWERED,
    ),
    Edit(
        "parser",
        replaced(ASKING, ('(output or "").strip()', 'f"{output}."')),
        "the task's own code, and what reads its column",
        {**TASK, **TAGGED},
    ),
    Edit(
        "output column added",
        replaced(
            ASKING,
            ('["answer", "model_name"]', '["answer", "model_name", "length"]'),
            ('(output or "").strip()}', '(output or "").strip(), "length": len(output or "")}'),
        ),
        "the task's own code, and what takes whole rows",
        {**TASK, **LAST},
    ),
    Edit(
        "system prompt",
        asked("system_prompt", '"Be kind."'),
        "all requests, and what reads the answers",
        ANSWERED,
    ),
    Edit(
        "`llm.generation_kwargs.temperature`",
        script('"temperature": 0.7', '"temperature": 0.8'),
        "all requests, and what reads the answers",
        ANSWERED,
    ),
    Edit(
        "another model",
        script("Oracle(log", 'Oracle(model="oracle-2", log'),
        "all requests, and what reads the answers",
        ANSWERED,
    ),
    Edit(
        "the model's code",
        replaced(ASKING, ('"input_tokens": [9]', '"input_tokens": [8]')),
        "all requests; the answers have equal text, so that `tag` finds its rows",
        {**TASK, "llm": ROWS, **LAST},
    ),
    Edit(
        "`max_new_tokens`: 8 -> 10",
        script('"max_new_tokens": 8', '"max_new_tokens": 10'),
        "the 600 answers that were cut, of which 400 come out longer",
        {**TASK, "llm": 600, "tag": 400, **LAST},
    ),
    Edit(
        "`max_new_tokens`: 8 -> 6",
        script('"max_new_tokens": 8', '"max_new_tokens": 6'),
        "the 1,000 answers that do not end within it, of which 800 come out shorter",
        {**TASK, "llm": 1_000, "tag": 800, **LAST},
    ),
    Edit(
        "`num_generations`: 1 -> 2",
        asked("num_generations", "2"),
        "the second answers, and what reads them",
        {"render": ROWS, "llm": ROWS, "read": 2 * ROWS, "tag": ROWS, "keep": ROWS}
        | {"pack": 2 * KEPT, "rank": 2 * KEPT},
    ),
)

_MORE = 'rows_of = lambda first: [{"id": n, "text": f"Order {n} where is it", "title": ""} for n in first]\n'

DATA = (
    Edit(
        "20 rows appended",
        with_rows(f"{_MORE}rows += rows_of(range(2000, 2020))"),
        "these; of `pack` the last batch",
        each_row(20, pack=15, rank=KEPT + 15),
    ),
    Edit(
        "20 rows prepended",
        with_rows(f"{_MORE}rows[:0] = rows_of(range(2000, 2020))"),
        "these; of `pack` all, since every batch begins elsewhere",
        each_row(20, pack=KEPT + 15, rank=KEPT + 15),
    ),
    Edit(
        "20 rows changed",
        with_rows('for row in rows[100:120]:\n    row["text"] = row["text"].replace("where", "when")'),
        "these; of `pack` the batch that holds them",
        each_row(20, pack=50, rank=KEPT),
    ),
    Edit(
        "20 rows changed where it does not matter",
        with_rows('for row in rows[100:120]:\n    row["text"] += " by now"'),
        "these, until `clean` gives the same as before",
        {"clean": 20, "keep": 20, "pack": 50, "rank": KEPT},
    ),
    Edit(
        "20 rows deleted",
        with_rows("del rows[100:120]"),
        "no row; of `pack` all batches from there on",
        {"pack": KEPT - 15 - 50, "rank": KEPT - 15},
    ),
    Edit(
        "rows shuffled",
        with_rows("import random\n\nrandom.Random(1).shuffle(rows)"),
        "no row; what takes whole batches or all rows",
        LAST,
    ),
    Edit(
        "20 rows duplicated",
        with_rows("rows += rows[:20]"),
        "the second ones: equal rows stay separate",
        each_row(20, pack=15, rank=KEPT + 15),
    ),
    Edit(
        "an unrelated column added",
        with_rows('for row in rows:\n    row["shop"] = "north"'),
        "what takes whole rows",
        LAST,
    ),
    Edit(
        "an unrelated column changed",
        with_rows('for row in rows:\n    row["id"] += 1'),
        "what takes whole rows",
        LAST,
    ),
)

GRAPH = (
    Edit(
        "input mapping",
        script('Clean(name="clean"', 'Clean(name="clean", input_mappings={"text": "title"}'),
        _TEXT,
        CLEANED,
    ),
    Edit(
        "output mapping of the task",
        replaced(
            SCRIPT,
            ('name="ask"', 'name="ask", output_mappings={"answer": "said"}'),
            ('name="tag"', 'name="tag", input_mappings={"answer": "said"}'),
        ),
        "the task's own code, and the step whose mapping changed with it",
        {**TASK, **TAGGED},
    ),
    Edit(
        "a step inserted",
        script(
            "    load >> clean",
            '    short = Clean(name="short", log=LOG, input_mappings={"text": "title"},\n'
            '                  output_mappings={"clean": "short"})\n'
            "    load >> short >> clean",
        ),
        "the new step (a second `clean`), and what takes whole rows",
        {"clean": ROWS, **LAST},
    ),
    Edit("a step removed", step_removed, "what takes whole rows", LAST),
    Edit(
        "a step added at the end",
        replaced(SCRIPT, (">> pack >> rank", '>> pack >> rank >> Keep(name="again", log=LOG)')),
        "nothing: `keep` has the same function, and knows these texts",
        NOTHING,
        same_rows=True,
    ),
)

SECTIONS: Mapping[str, tuple[Edit, ...]] = {
    "Code": CODE,
    "Parameters": PARAMETERS,
    "How it is run, and names": RUNNING,
    "Tasks": TASKS,
    "Rows": DATA,
    "Mappings and steps": GRAPH,
}

EDITS = tuple(edit for section in SECTIONS.values() for edit in section)
