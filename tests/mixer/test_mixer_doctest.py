"""The examples in docstrings are true."""

from __future__ import annotations

import doctest

import pytest

import dissect.data.sessions
import dissect.models.recipes
import mixer


@pytest.mark.parametrize("module", [mixer, dissect.models.recipes, dissect.data.sessions], ids=lambda m: m.__name__)
def test_examples(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted
    assert not found.failed
