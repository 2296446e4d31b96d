"""The README's whole programs run, and come to what it prints beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dissect.experiment.suite import load_suite

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
PROGRAMS = [
    (code, text) for code, text in re.findall(r"```python\n(import torch\n.*?)```\n\n```text\n(.*?)```", README, re.S)
]


ROOT = Path(__file__).resolve().parent.parent
SUITES = re.findall(
    r"dissect suite\s+(analyses/suites/[a-z]\w*\.toml)((?:\s+--(?:variant|seed) \w+)*)",
    README + (ROOT / "docs" / "results.md").read_text(),
)


def kept(text: str) -> dict[str, tuple[int, int]]:
    return {name: (int(k), int(n)) for name, k, n in re.findall(r"^(\S+) None (\d+) of (\d+)$", text, re.M)}


@pytest.mark.parametrize(("code", "printed"), PROGRAMS, ids=["mlp", "transformer"])
def test_a_program_comes_to_what_is_printed(code: str, printed: str, capsys: pytest.CaptureFixture[str]):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert kept(out).keys() == kept(printed).keys() != set()
    for part, (count, total) in kept(printed).items():
        found, size = kept(out)[part]
        assert size == total
        assert abs(found - count) <= 0.1 * total  # another version of torch draws other numbers
    errors = [float(e) for e in re.findall(r"squared error ([\d.]+)", out)]
    assert len(errors) == 2
    assert max(errors) < 0.4


@pytest.mark.parametrize(("file", "options"), sorted(set(SUITES)))
def test_every_suite_that_is_named_has_the_variant_and_the_seed(file: str, options: str):
    words = options.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    suite = load_suite(ROOT / file, given.get("--variant", "small"))
    assert int(given.get("--seed", suite.entries[0].spec.seed)) in {entry.spec.seed for entry in suite.entries}


def test_the_example_of_a_suite_file_is_one(tmp_path: Path):
    example = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "suites.md").read_text(), re.S)
    assert example
    file = tmp_path / "example.toml"
    file.write_text(example[1])
    labels = ["SR-GNN", "without encoder, lr 0.001", "without encoder, lr 0.002"]
    assert load_suite(file).labels == labels
    assert len(load_suite(file).entries) == 9
    assert len(load_suite(file, "full").entries) == 3
