"""The import rules: the tree's floors, and who may stand on whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Package -> what of ours it may import, itself aside.
ALLOWED = {
    "mixer": set(),
    "dissect.batch": set(),
    "dissect.errors": set(),
    "dissect.data": {"dissect", "dissect.errors"},
    "dissect.sparsity": {"dissect.errors"},
    "dissect.models": {"dissect.batch", "dissect.errors", "mixer"},
    "dissect.training": {"dissect.batch", "dissect.errors"},
    "dissect.report": {"dissect.errors"},
    # The controls and the report stand above the experiment, with one exception: the run command (experiment/main.py)
    # draws its figure and prints its table at its end, so it may call the report. The report reads records only.
    "dissect.experiment": {
        "dissect", "dissect.batch", "dissect.errors", "dissect.data", "dissect.sparsity", "dissect.models",
        "dissect.training", "dissect.report",
    },
    "dissect.controls": {
        "dissect", "dissect.batch", "dissect.errors", "dissect.data", "dissect.sparsity", "dissect.models",
        "dissect.training", "dissect.experiment", "dissect.report",
    },
    "dissect.cli": {
        "dissect", "dissect.errors", "dissect.experiment", "dissect.controls", "dissect.report", "dissect.data",
    },
    "dissect.__main__": {"dissect.cli"},
    "dissect": set(),
}  # fmt: skip
#: What of others' a package may import, beyond the standard library; not named here: anything.
THIRD_PARTY = {
    "mixer": {"torch"},
    "dissect.batch": {"torch"},
    "dissect.sparsity": {"torch"},
    "dissect.data": {"numpy", "polars", "pooch", "pyarrow", "requests", "rich"},
    "dissect.report": {"numpy", "matplotlib", "rich", "scipy", "tomli"},
    "dissect.cli": {"click"},
}
FILES = sorted([*ROOT.glob("mixer/**/*.py"), *ROOT.glob("dissect/**/*.py")])


def package_of(module: str) -> str:
    """The longest name in `ALLOWED` that is `module` or holds it; ``dissect`` itself holds nothing."""
    names = [n for n in ALLOWED if module == n or (n != "dissect" and module.startswith(n + "."))]
    return max(names, key=len) if names else module


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a file or a package of ours."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it; ``from package import module`` imports the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if is_module(inside) else node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_floors(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    package = package_of(module)
    assert package in ALLOWED, f"{module} is on no floor"
    for name in imports(path):
        top = name.split(".")[0]
        if top in ("dissect", "mixer"):
            target = package_of(name)
            assert target == package or target in ALLOWED[package], f"{module} imports {name}"
        elif top not in sys.stdlib_module_names and package in THIRD_PARTY:
            assert top in THIRD_PARTY[package], f"{module} imports {name}"


def test_modules_imported_from_a_package_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "import os.path\nfrom dissect import __version__, cli\nfrom dissect.experiment import record, use\n"
    )
    assert imports(file) == {"os.path", "dissect", "dissect.cli", "dissect.experiment.record", "dissect.experiment.use"}


def test_nothing_imports_cli_figures_or_analyses() -> None:
    for path in FILES:
        tops = {n.split(".")[0] for n in imports(path)}
        assert not tops & {"figures", "analyses", "tests"}, path
        assert "dissect.cli" not in imports(path) or path.name == "__main__.py", path


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["bench", "--help"], ["compare", "--help"], ["sweep", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom dissect.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'rich', 'pooch', 'pyarrow', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
