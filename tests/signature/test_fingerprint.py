"""What changes a code fingerprint, and what does not."""

from __future__ import annotations

import functools
import itertools
import linecache
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distill_ray.errors import SignatureError
from distill_ray.signature.fingerprint import Fingerprint, fingerprint

Write = Callable[..., ModuleType]

WORK = '''
import re
import shared
from shared import LIMIT, clean

PROMPT = "Answer: {}"
WORDS = re.compile("a+")
UNUSED = 1


class Base:
    suffix = "!"

    def end(self, text):
        return text + self.suffix


class Work(Base):
    """Works."""

    size = 3

    def run(self, text, times=2):
        """Runs."""
        # a remark
        words = WORDS.findall(
            text,
        )
        return self.end(clean(PROMPT.format(text)) * times)[:LIMIT] + shared.deep(text), words

    @property
    def half(self):
        return shared.package_constant.HALF
'''

SHARED = """
import constants as package_constant
from constants import FROM_CONSTANTS

LIMIT = 9
DEPTH = 1
UNUSED = 1


def clean(text):
    return text.strip()


def deep(text):
    return inner(text)


def inner(text):
    return text[DEPTH:FROM_CONSTANTS]


def unused():
    return 1
"""

CONSTANTS = "HALF = 0.5\nFROM_CONSTANTS = 7\nUNUSED = 1\n"


@pytest.fixture
def digest_of(write_module: Write) -> Callable[..., str]:
    """The digest of class ``Work`` after an edit."""

    def digest(file: str = "", old: str = "", new: str = "") -> str:
        texts = {"constants": CONSTANTS, "shared": SHARED, "work": WORK}
        if file:
            assert texts[file].count(old) == 1
            texts[file] = texts[file].replace(old, new)
        modules = {name: write_module(text, name) for name, text in texts.items()}
        return fingerprint(modules["work"].Work).digest

    return digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("work", "# a remark", "# another remark"),
        ("work", "        # a remark\n", ""),
        ("work", '"""Works."""', '"""Works well.\n\n    And says so."""'),
        ("work", '        """Runs."""\n', ""),
        ("work", '"""Runs."""', "'''Runs.'''  # remark"),
        ("work", "size = 3\n", "size = 3   \n\n\n"),
        (
            "work",
            "import re\n",
            "import re\nimport os\n\nOTHER = os.sep\n\n\ndef other():\n    return OTHER\n",
        ),
        ("work", "(\n            text,\n        )", "(text,)"),
        ("work", "times=2", "times = 2"),
        ("work", "UNUSED = 1", "UNUSED = 2"),
        ("shared", "UNUSED = 1", "UNUSED = 2"),
        ("shared", "    return 1", "    return 2"),
        ("constants", "UNUSED = 1", "UNUSED = 2"),
        ("shared", "def inner(text):\n", "def inner(text):\n    'Cuts.'\n"),
    ],
)
def test_an_edit_that_changes_no_result_changes_no_fingerprint(
    digest_of: Callable[..., str], file: str, old: str, new: str
) -> None:
    assert digest_of(file, old, new) == digest_of()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("work", "* times", "+ times"),
        ("work", "times=2", "times=3"),
        ("work", '"Answer: {}"', '"Answer:  {}"'),
        ("work", 'compile("a+")', 'compile("b+")'),
        ("work", 'compile("a+")', 'compile("a+", re.IGNORECASE)'),
        ("work", 'suffix = "!"', 'suffix = "?"'),
        ("work", "text + self.suffix", "self.suffix + text"),
        ("work", "size = 3", "size = 4"),
        ("work", "    @property\n    def half", "    def half"),
        ("shared", "text.strip()", "text.lstrip()"),
        ("shared", "return inner(text)", "return inner(text) + ''"),
        ("shared", "DEPTH = 1", "DEPTH = 2"),
        ("shared", "DEPTH = 1", "DEPTH = True"),
        ("shared", "LIMIT = 9", "LIMIT = 10"),
        ("constants", "0.5", "0.25"),
        ("constants", "FROM_CONSTANTS = 7", "FROM_CONSTANTS = 8"),
    ],
)
def test_an_edit_of_what_a_class_reaches_changes_its_fingerprint(
    digest_of: Callable[..., str], file: str, old: str, new: str
) -> None:
    assert digest_of(file, old, new) != digest_of()


def test_a_class_may_move_within_its_file_and_be_indented(write_module: Write) -> None:
    text = '''
    class Work:
        def run(self):
            return """a
    b"""
    '''
    plain = fingerprint(write_module(text).Work)
    moved = write_module("import sys\n\nx = 1\n" + textwrap.dedent(text) + "\n\nclass After: pass\n")
    nested = write_module(
        "if True:\n    if True:\n"
        + textwrap.dedent(text).replace("\n", "\n        ").replace("        b", "b")
    )
    assert fingerprint(moved.Work) == plain
    assert fingerprint(nested.Work) == plain


def function_of(module: ModuleType, name: str = "run") -> Fingerprint:
    found: Callable[..., Any] = getattr(module, name)
    return fingerprint(found)


def differ(write_module: Write, text: str, old: str, new: str, name: str = "run") -> bool:
    """Whether an edit of a module changes the fingerprint of its function ``run``."""
    assert old in text
    before = function_of(write_module(text), name)
    return function_of(write_module(text.replace(old, new)), name).digest != before.digest


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(
            "import functools\n@functools.lru_cache\ndef helper(x): return x\ndef run(x): return helper(x)",
            "return x\n",
            "return -x\n",
            id="cached helper",
        ),
        pytest.param(
            "import functools\n@functools.singledispatch\ndef helper(x): return x\n"
            "@helper.register\ndef _(x: int): return x + 1\ndef run(x): return helper(x)",
            "x + 1",
            "x + 2",
            id="single dispatch",
        ),
        pytest.param(
            "import functools\ndef helper(x, by): return x\nhalf = functools.partial(helper, by=2)\n"
            "def run(x): return half(x)",
            "by=2",
            "by=3",
            id="partial's arguments",
        ),
        pytest.param(
            "import functools\ndef helper(x, by): return x\nhalf = functools.partial(helper, by=2)\n"
            "def run(x): return half(x)",
            "return x\n",
            "return -x\n",
            id="partial's function",
        ),
        pytest.param("double = lambda x: x * 2\ndef run(x): return double(x)", "x * 2", "x * 3", id="lambda"),
        pytest.param(
            "def double(x): return x * 2\nRULES = {'a': [double]}\ndef run(x): return RULES['a'][0](x)",
            "x * 2",
            "x * 3",
            id="function in a container",
        ),
        pytest.param(
            "def deco(f):\n    def inner(x): return f(x) + 1\n    return inner\n@deco\ndef run(x): return x",
            "+ 1",
            "+ 2",
            id="decorator",
        ),
        pytest.param(
            "def deco(f):\n    def inner(x): return f(x) + 1\n    return inner\n@deco\ndef run(x): return x",
            "return x",
            "return -x",
            id="decorated",
        ),
        pytest.param(
            "def deco(n):\n    def outer(f):\n"
            "        def inner(x): return f(x) + n\n        return inner\n"
            "    return outer\n@deco(1)\ndef run(x): return x",
            "@deco(1)",
            "@deco(2)",
            id="decorator's argument",
        ),
        pytest.param(
            "from contextlib import contextmanager\n@contextmanager\ndef around():\n    yield 1\n"
            "def run(x):\n    with around() as y: return y",
            "yield 1",
            "yield 2",
            id="context manager",
        ),
        pytest.param(
            "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    top: int = 1\n"
            "settings = Settings(5)\ndef run(x): return settings.top",
            "Settings(5)",
            "Settings(6)",
            id="global dataclass's fields",
        ),
        pytest.param(
            "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    top: int = 1\n"
            "def run(x): return Settings().top",
            "= 1",
            "= 2",
            id="dataclass's default",
        ),
        pytest.param(
            "class Judge:\n    def __init__(self, at): self.at = at\n"
            "    def __call__(self, x): return x > self.at\n"
            "judge = Judge(0.5)\ndef run(x): return judge(x)",
            "Judge(0.5)",
            "Judge(0.6)",
            id="global object's state",
        ),
        pytest.param(
            "class Judge:\n    def __init__(self, at): self.at = at\n"
            "    def __call__(self, x): return x > self.at\n"
            "judge = Judge(0.5)\ndef run(x): return judge(x)",
            "x > self.at",
            "x >= self.at",
            id="global object's class",
        ),
        pytest.param(
            "class Judge:\n    def good(self, x): return x\n"
            "judge = Judge().good\ndef run(x): return judge(x)",
            "return x\n",
            "return -x\n",
            id="bound method",
        ),
        pytest.param(
            "from string import Template\nTEXT = Template('a $x')\ndef run(x): return TEXT.substitute(x=x)",
            "'a $x'",
            "'b $x'",
            id="object of a library, by its statement",
        ),
        pytest.param(
            "from enum import Enum\nclass Mode(Enum):\n    A = 1\ndef run(x): return Mode.A.value",
            "A = 1",
            "A = 2",
            id="enum",
        ),
        pytest.param(
            "from enum import Enum\nMode = Enum('Mode', {'A': 1})\ndef run(x): return Mode.A.value",
            "'A': 1",
            "'A': 2",
            id="enum without class statement",
        ),
        pytest.param(
            "from collections import namedtuple\n"
            "P = namedtuple('P', 'a b')\ndef run(x): return P(1, 2)._asdict()",
            "'a b'",
            "'a c'",
            id="namedtuple",
        ),
        pytest.param(
            "from typing import Annotated\ndef low(x): return x.lower()\nText = Annotated[str, low]\n"
            "class Work:\n    x: Text\ndef run(x): return Work",
            "x.lower()",
            "x.upper()",
            id="alias in an annotation",
        ),
        pytest.param(
            "def filter(x): return x + 1\ndef run(x): return filter(x)",
            "x + 1",
            "x + 2",
            id="helper with a builtin's name",
        ),
        pytest.param(
            "class Outer:\n    class Inner:\n        def go(self): return 1\n"
            "def run(x): return Outer.Inner().go()",
            "return 1",
            "return 2",
            id="nested class",
        ),
        pytest.param(
            "class Meta(type):\n    def go(cls): return 1\nclass Work(metaclass=Meta): pass\n"
            "def run(x): return Work.go()",
            "return 1",
            "return 2",
            id="metaclass",
        ),
        pytest.param(
            "FAST = True\nif FAST:\n    class Work:\n"
            "        def go(self): return 1\nelse:\n    class Work:\n"
            "        def go(self): return 2\ndef run(x): return Work().go()",
            "FAST = True",
            "FAST = False",
            id="which of two classes of one name",
        ),
        pytest.param(
            "def make(loud):\n    class Work:\n        if loud:\n            def go(self): return 1\n"
            "        else:\n            def go(self): return 2\n    return Work\nrun = make(True)",
            "make(True)",
            "make(False)",
            id="which of two methods of one name",
        ),
        pytest.param(
            "from string import Formatter\ndef shout(x): return x + '!'\nFORM = Formatter()\n"
            "FORM.convert = shout\ndef run(x): return FORM.format(x)",
            "'!'",
            "'?'",
            id="attribute set on an object of a library",
        ),
        pytest.param(
            "from string import Template\nTEXTS = {}\nfor text in ['a', 'b']:\n"
            "    TEXTS[text] = Template(text)\ndef run(x): return TEXTS[x]",
            "'b'",
            "'c'",
            id="items set in a loop to objects of a library",
        ),
        pytest.param(
            "from string import Template\nTEXTS = {'a': Template('a')}\n"
            "TEXTS.update(b=Template('b'))\ndef run(x): return TEXTS[x]",
            "Template('b')",
            "Template('c')",
            id="method called on objects of a library",
        ),
        pytest.param(
            "from collections import defaultdict\nTEXTS = defaultdict(lambda: 'a', b='b')\n"
            "def run(x): return TEXTS[x]",
            "'a'",
            "'c'",
            id="what a dict gives for other keys",
        ),
        pytest.param(
            "def helper(x): return helper.text + x\nhelper.text = 'a'\ndef run(x): return helper(x)",
            "'a'",
            "'b'",
            id="attribute of a function",
        ),
        pytest.param(
            "class Box:\n    __slots__ = ('__x',)\n    def __init__(self, x): self.__x = x\n"
            "class Work:\n    box = Box(1)\ndef run(x): return Work.box",
            "Box(1)",
            "Box(2)",
            id="slot with a private name",
        ),
        pytest.param("def run(x, *, by=(1, 2)): return x", "(1, 2)", "(1, 3)", id="keyword default"),
        pytest.param(
            'def run(x): return f"a{x!r:>{10}} # {x}"', "# {", "#  {", id="hash sign in an f-string"
        ),
        pytest.param('def run(x): return """a\n  b # c\n"""', "  b", "    b", id="indentation in a text"),
        pytest.param('def run(x): return """a\n\nb # c\n"""', "\n\n", "\n", id="empty line in a text"),
    ],
)
def test_whatever_a_function_reaches_counts(write_module: Write, text: str, old: str, new: str) -> None:
    assert differ(write_module, text, old, new)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param('def run(): "doc"', '"doc"', '"other"', id="docstring on the line of its function"),
        pytest.param(
            'def run(): "doc"; return 1', '"doc"', 'r"""other"""', id="docstring before a semicolon"
        ),
        pytest.param(
            'def run(x):\n    "a" "b"\n    return x', '"a" "b"', '"c"', id="docstring of several texts"
        ),
        pytest.param(
            "rows = [1]\ndef run(rows): return [rows for rows in rows]",
            "rows = [1]",
            "rows = [2]",
            id="global of a local variable's name",
        ),
        pytest.param(
            "data = 1\ndef run(x): return x.data", "data = 1", "data = 2", id="global of an attribute's name"
        ),
        pytest.param("def run(x):\n\treturn x", "\t", "    ", id="tabs"),
        pytest.param("def run(x): return x + 1", "x + 1", "x + \\\n      1", id="continuation line"),
    ],
)
def test_what_changes_no_result_does_not_count(write_module: Write, text: str, old: str, new: str) -> None:
    assert not differ(write_module, text, old, new)


def test_imports_inside_functions_are_followed(write_module: Write) -> None:
    text = (
        "def run(x):\n    from inside import helper\n    import inside as i\n    return helper(x) + i.LIMIT"
    )
    digests = set()
    for inside in (
        "LIMIT = 1\ndef helper(x): return x",
        "LIMIT = 2\ndef helper(x): return x",
        "LIMIT = 1\ndef helper(x): return -x",
    ):
        write_module(inside, "inside")
        digests.add(function_of(write_module(text)).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "try:\n    from own import TEXT\nexcept ImportError:\n    from string import TEXT",
        "from os import *\nfrom own import *",
    ],
)
def test_of_several_imports_the_one_that_gave_the_value_counts(write_module: Write, statement: str) -> None:
    found = set()
    for text in ("a", "b"):
        write_module(f"from string import Template\nTEXT = Template('{text}')", "own")
        found.add(function_of(write_module(f"{statement}\ndef run(x): return TEXT")).digest)
    assert len(found) == 2


def test_constants_of_one_name_in_two_modules_are_two(write_module: Write) -> None:
    def digest(one: int, two: int) -> str:
        write_module(f"LIMIT = {one}\ndef low(x): return x > LIMIT", "one")
        write_module(f"LIMIT = {two}\ndef high(x): return x < LIMIT", "two")
        text = "from one import low\nfrom two import high\ndef run(x): return low(x) and high(x)"
        return function_of(write_module(text)).digest

    assert len({digest(1, 2), digest(2, 1), digest(1, 1)}) == 3


def test_what_a_closure_captured_counts() -> None:
    def make(by: Any) -> Callable[..., Any]:
        def times(x: Any) -> Any:
            return x * by

        return times

    assert fingerprint(make(1)).digest == fingerprint(make(1)).digest
    assert len({fingerprint(make(by)).digest for by in (1, True, 1.0, "1", None, [1], make(1), make(2))}) == 8


def test_a_default_and_an_attribute_taken_from_around_a_class_count() -> None:
    def make(by: Any) -> type:
        class Times:
            limit = by

        return Times

    def make_default(by: Any) -> Callable[..., Any]:
        def times(x: Any, by: Any = by) -> Any:
            return x * by

        return times

    assert fingerprint(make(1)).digest != fingerprint(make(2)).digest
    assert fingerprint(make_default(1)).digest != fingerprint(make_default(2)).digest


def test_two_lambdas_of_one_line_are_two() -> None:
    more, less = (lambda x: x + 1), (lambda x: x - 1)
    captured = [lambda x, n=n: x * n for n in (1, 2)]
    assert "x + 1" in fingerprint(more).pieces[0][1]
    assert "x - 1" in fingerprint(less).pieces[0][1]
    assert fingerprint(captured[0]).digest != fingerprint(captured[1]).digest


def test_a_method_assigned_from_outside_counts(write_module: Write) -> None:
    text = "class Work:\n    def run(self): return 1\n"
    plain = fingerprint(write_module(text).Work)
    for patch in (
        "def other(self): return 2\nWork.run = other",
        "def other(self): return 3\nWork.run = other",
        "Work.run = lambda self: 2",
        "Work.size = 3",
        "Work.size = 4",
    ):
        digest = fingerprint(write_module(text + patch).Work).digest
        assert digest != plain.digest


def test_a_constant_changed_in_this_process_counts(write_module: Write) -> None:
    module = write_module("LIMIT = 1\ndef run(x): return LIMIT")
    before = function_of(module)
    module.LIMIT = 2  # type: ignore[attr-defined]
    assert function_of(module).digest != before.digest


def test_recursion_and_mutual_recursion_end(write_module: Write) -> None:
    text = (
        "def run(x): return other(x)\ndef other(x): return run(x) + 1\n"
        "class A:\n    def me(self): return A, B\n"
        "class B(A):\n    pass\n"
    )
    assert differ(write_module, text, "+ 1", "+ 2")
    assert fingerprint(write_module(text).B).digest


def test_an_object_that_holds_itself_counts(write_module: Write) -> None:
    text = (
        "class Node:\n    def __init__(self): self.me, self.n = self, 1\n"
        "node = Node()\ndef run(x): return node"
    )
    assert differ(write_module, text, "self, 1", "self, 2")


def test_a_long_chain_of_helpers_counts_to_its_end(write_module: Write) -> None:
    helpers = "\n".join(f"def f{n}(x): return f{n + 1}(x)" for n in range(600))
    text = f"{helpers}\ndef f600(x): return x + 1\ndef run(x): return f0(x)"
    assert differ(write_module, text, "x + 1", "x + 2")


def test_what_installed_libraries_hold_counts_by_name(write_module: Write) -> None:
    text = (
        "import textwrap, pathlib\nfrom math import pi\n"
        "def run(x): return textwrap.dedent(x), pathlib.Path(x), pi"
    )
    found = function_of(write_module(text))
    assert [name for name, _ in found.pieces] == ["run"]
    assert differ(write_module, text, "from math import pi", "from math import e as pi")


def test_a_file_that_changed_since_its_import_is_an_error_not_a_wrong_key(write_module: Write) -> None:
    module = write_module(
        "class Work:\n    def run(self):\n        return 1\n\n\ndef run(x):\n    return 1\n"
    )
    fingerprint(module.Work)
    path = Path(str(module.__file__))
    path.write_text(path.read_text().replace("1", "22"))
    for code in (module.Work, module.run):
        with pytest.raises(
            SignatureError, match=r"the file has changed since it was imported.*Start Python again"
        ):
            fingerprint(code)


def test_a_class_edited_and_imported_again_counts_anew(write_module: Write) -> None:
    text = "class Work:\n    size = 1\n    def run(self): return 1\n"
    old = write_module(text).Work
    new = write_module(text.replace("return 1", "return 2")).Work
    assert fingerprint(old).digest != fingerprint(new).digest
    assert fingerprint(old).digest != fingerprint(new).digest


@pytest.fixture
def run_cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Run a cell as a notebook does: its text is known to linecache alone; gives back the globals."""
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    numbers = itertools.count()

    def run(text: str) -> dict[str, Any]:
        name = f"<ipython-input-{next(numbers)}-cell>"
        entry = (len(text), None, text.splitlines(keepends=True), name)
        monkeypatch.setitem(linecache.cache, name, entry)
        exec(compile(text, name, "exec"), vars(notebook))
        return vars(notebook)

    return run


def test_classes_and_functions_of_notebook_cells_are_known_by_their_cells(
    run_cell: Callable[[str], dict[str, Any]],
) -> None:
    run_cell("LIMIT = 1\ndef helper(x):\n    return x + LIMIT\n")
    scope = run_cell(
        "class Work:\n    def run(self, x):\n        return helper(x)\nclass Settings:\n    top = 1\n"
    )
    first, settings = fingerprint(scope["Work"]), fingerprint(scope["Settings"])
    run_cell("class Work:\n    def run(self, x):\n        return helper(x) # again\n")
    assert fingerprint(scope["Work"]).digest == first.digest
    run_cell("def helper(x):\n    return x - LIMIT\n")
    assert fingerprint(scope["Work"]).digest != first.digest
    run_cell("class Settings:\n    top = 2\n")
    assert fingerprint(scope["Settings"]).digest != settings.digest


SCRIPT = """
import logging
from pathlib import Path
from distill_ray.signature.fingerprint import fingerprint

LIMIT = 1
HERE = Path(__file__).resolve().parent
PROMPTS = HERE / "prompts"
log = logging.getLogger(__name__)

class Mode(str):
    pass

MODE = Mode("a")

class Work:
    def run(self):
        log.info(__name__)
        return LIMIT, MODE, HERE, PROMPTS

print(fingerprint(Work).digest)
"""


def test_a_script_and_the_module_of_its_name_have_one_fingerprint_wherever_they_lie(tmp_path: Path) -> None:
    printed = set()
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        (folder / "script.py").write_text(SCRIPT)
        for arguments in (
            [str(folder / "script.py")],
            ["script.py"],
            ["-m", "script"],
            ["-c", "import script"],
        ):
            run = subprocess.run(
                [sys.executable, *arguments], cwd=folder, check=True, capture_output=True, text=True
            )
            printed.add(run.stdout)
    assert len(printed) == 1


def test_a_path_counts_as_it_looks_from_its_module(write_module: Write) -> None:
    text = "from pathlib import Path\nPROMPT = Path(__file__).parent / 'a.txt'\ndef run(x): return PROMPT"
    assert differ(write_module, text, "a.txt", "b.txt")
    assert not differ(write_module, text, "a.txt", "a.txt")
    assert differ(write_module, "PROMPT = '/data/a.txt'\ndef run(x): return PROMPT", "a.txt", "b.txt")


def test_code_without_source_is_an_error_that_asks_for_a_version() -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("class Work:\n    def run(self): return 1\ndef run(x): return x", scope)
    for code in (scope["run"], scope["Work"]):
        with pytest.raises(
            SignatureError, match=r'cannot be found.*Define it in a file, or set `version = "1"`'
        ):
            fingerprint(code)


def test_a_captured_value_whose_content_nobody_knows_is_an_error() -> None:
    secret_state = iter([1, 2])

    def run(x: Any) -> Any:
        return x, secret_state

    with pytest.raises(
        SignatureError, match=r"'run' uses 'captured secret_state'.*list_iterator.*parameter of the step"
    ):
        fingerprint(run)


def test_a_helper_that_cannot_be_imported_is_an_error(write_module: Write) -> None:
    write_module("raise_on_use = 1", "half_there")
    module = write_module("def run(x):\n    from half_there import missing\n    return missing")
    with pytest.raises(SignatureError, match=r"'run' imports 'half_there.missing' while it runs"):
        fingerprint(module.run)


@pytest.mark.parametrize(
    ("text", "blind_spot"),
    [
        (
            "def run(x): return getattr(x, 'a')",
            "'run' uses 'getattr', and what it gets by that does not count.",
        ),
        ("def run(x): return open(x)", "'run' uses 'open', and what it gets by that does not count."),
        ("import os\ndef run(x): return os.environ['A']", "'run' uses 'environ', and what it gets by that"),
        ("def run(x): return later", "'run' uses 'later', which has no value yet."),
        ("count = 0\ndef run(x):\n    global count\n    count += 1", "'run' sets 'count' while it runs"),
        (
            "def run(x):\n    import not_anywhere",
            "'run' imports 'not_anywhere', which is not on this machine.",
        ),
        (
            "from string import Formatter\nF = Formatter()\ndef run(x): return F",
            "a string.Formatter, which counts by",
        ),
    ],
)
def test_what_cannot_be_seen_is_told(write_module: Write, text: str, blind_spot: str) -> None:
    (found,) = function_of(write_module(text)).blind_spots
    assert blind_spot in found


def test_ordinary_code_has_no_blind_spots(digest_of: Callable[..., str], write_module: Write) -> None:
    digest_of()
    assert fingerprint(sys.modules["work"].Work).blind_spots == ()
    text = (
        "import logging\nlog = logging.getLogger('a')\n"
        "def run(x):\n    def inner(): return x\n    log.info(x)\n"
    )
    assert function_of(write_module(text)).blind_spots == ()


def test_pieces_hold_readable_sources_but_no_constant(write_module: Write) -> None:
    text = (
        "TOKEN = 'sk-123'\ndef helper(x):\n    # remark\n"
        "    return  TOKEN\n\ndef run(x):\n    return helper(x)"
    )
    pieces = dict(function_of(write_module(text)).pieces)
    assert pieces["helper"] == "def helper ( x ) :\n    return TOKEN"
    assert "sk-123" not in str(pieces)
    assert set(pieces) == {"run", "helper", "helper: value of TOKEN"}


@functools.wraps(fingerprint)
def wrapped_by_a_test(*arguments: Any) -> Any:
    return fingerprint(*arguments)


def test_a_wrapper_is_known_by_its_own_code_not_by_the_name_it_took() -> None:
    pieces = dict(fingerprint(wrapped_by_a_test).pieces)
    assert "def wrapped_by_a_test" in pieces["fingerprint"]
