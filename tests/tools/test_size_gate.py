"""The size gate lets through what is at its limits and names what is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import size_gate


def check(folder: Path, source: str) -> int:
    (folder / "module.py").write_text(source)
    return size_gate.main([str(folder)])


def lines(count: int, indent: str = "") -> str:
    return f"{indent}x = 1\n" * count


def test_what_is_at_its_limits_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    function = f"def f(a, b, c, d, e, f):\n{lines(49, '    ')}"
    method = f"    async def m(self, a, b, c, d, e, f):\n{lines(49, '        ')}"
    big = f"class C:\n{method}{lines(199, '    ')}"
    assert check(tmp_path, function + big + lines(100)) == 0
    assert "1 modules are within" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (lines(401), "module.py:1: the module has 401 lines, the limit is 400"),
        (f"class C:\n{lines(250, '    ')}", "module.py:1: class C has 251 lines, the limit is 250"),
        (f"\ndef f():\n{lines(50, '    ')}", "module.py:2: function f has 51 lines, the limit is 50"),
        (
            f"class C:\n    async def m(self):\n{lines(50, '        ')}",
            "module.py:2: function m has 51 lines, the limit is 50",
        ),
        (
            "def f(a, b, c, d, /, e, f, g): ...\n",
            "module.py:1: function f has 7 positional parameters, the limit is 6",
        ),
    ],
)
def test_what_is_over_a_limit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, complaint: str
) -> None:
    assert check(tmp_path, source) == 1
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/{complaint}"]


def test_keyword_only_parameters_do_not_count(tmp_path: Path) -> None:
    assert check(tmp_path, "def f(a, *, b, c, d, e, f, g): ...\n") == 0


def test_the_docstring_of_a_function_does_not_count(tmp_path: Path) -> None:
    docstring = f'    """Says\n{lines(30)}    """\n'
    assert check(tmp_path, f"def f():\n{docstring}{lines(49, '    ')}") == 0
    assert check(tmp_path, f"def f():\n{docstring}{lines(50, '    ')}") == 1


def test_every_offender_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, f"def f(a, b, c, d, e, f, g):\n{lines(50, '    ')}{lines(400)}") == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    assert size_gate.main([str(tmp_path / "nowhere")]) == 2
