"""Shared fixtures: a small data set on disk, and the real data where `DISSECT_DATA` names them."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: workers of pytest-xdist, and what they start, share the cores instead of taking all each.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests out of the user's cache."""
    before = os.environ.get("DISSECT_CACHE")
    os.environ["DISSECT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DISSECT_CACHE"]
    else:
        os.environ["DISSECT_CACHE"] = before


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the data set ``toy``: 30 items, where the next item is mostly the last plus one."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    (root / "toy").mkdir()
    for name, count in (("train", 300), ("test", 60)):
        lines = []
        for _ in range(count):
            item = int(random.integers(30))
            session = [item]
            for _ in range(int(random.integers(1, 6))):
                item = (item + 1) % 30 if random.random() < 0.9 else int(random.integers(30))
                session.append(item)
            lines.append(",".join(map(str, session)))
        (root / "toy" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "toy" / "num_items.txt").write_text("30\n")
    return root
