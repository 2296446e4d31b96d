"""The training step of SR-GNN in RecBole-GNN (PyTorch Geometric), for `dissect bench --against`.

Clone https://github.com/RUCAIBox/RecBole-GNN (none of it is part of this project), install what it builds on beside
`dissect`, and name its folder:

    pip install recbole==1.1.1 torch_geometric
    export RECBOLE_GNN=/path/to/RecBole-GNN
    dissect bench srgnn --dataset diginetica --against analyses/peers/recbole_gnn.py:step

RecBole-GNN builds the graph of every example once for a whole data set, one example at a time
(`SessionGraphDataset.session_graph_construction`), and keeps it. So that is done here before any step and is not
timed. A step is what each batch then costs: the collation of its training data loader, which joins the stored graphs
(`SessionGraph`), the move to the device, forward, cross entropy over all items, `loss.item()`, backward and
`torch.optim.Adam` with RecBole's arguments. It leaves out the trainer's bookkeeping (its check for NaN, its mixed
precision, which is off) and the fields that SR-GNN does not read (times, session ids). Number of propagation steps,
loss and transform come from RecBole-GNN's own SRGNN.yaml; sessions are padded to the longest of the data set, so that
none is cut. Its graphs keep the node of the padding, and its softmax row 0. The device is CUDA where there is one,
as RecBole chooses.

Their layers import torch_sparse, of which SR-GNN uses nothing; where it is not installed, an empty stand-in takes its
place during that import.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from types import ModuleType
from typing import Any

from dissect.errors import DissectError


def _load(folder: str) -> tuple[Any, Any, Any, Any]:
    """Import the model, data set, data loader and batch classes of the clone in `folder`."""
    import torch_geometric.nn  # type: ignore[import-not-found]  # noqa: F401  (before the stand-in, or it would take it)

    sys.path.insert(0, folder)
    absent = find_spec("torch_sparse") is None
    if absent:
        sys.modules["torch_sparse"] = ModuleType("torch_sparse")
        sys.modules["torch_sparse"].matmul = None  # type: ignore[attr-defined]
    try:
        from recbole.data.interaction import Interaction  # type: ignore[import-not-found]
        from recbole_gnn.data.dataloader import CustomizedTrainDataLoader  # type: ignore[import-not-found]
        from recbole_gnn.data.dataset import SessionGraphDataset  # type: ignore[import-not-found]
        from recbole_gnn.model.sequential_recommender.srgnn import SRGNN  # type: ignore[import-not-found]
    finally:
        if absent:
            del sys.modules["torch_sparse"]
    return SRGNN, SessionGraphDataset, CustomizedTrainDataLoader, Interaction


def step(
    *,
    sessions: list[list[int]],
    targets: list[int],
    items: int,
    dim: int,
    batch_size: int,
    longest: int,
    lr: float,
    weight_decay: float,
) -> Any:
    """Build RecBole-GNN's model and graphs over these examples; returns its step, collation included."""
    if "RECBOLE_GNN" not in os.environ:
        raise DissectError("set RECBOLE_GNN to your clone of github.com/RUCAIBox/RecBole-GNN")
    folder = os.environ["RECBOLE_GNN"]
    model_class, dataset_class, loader_class, interaction_class = _load(folder)
    import torch
    import yaml  # type: ignore[import-untyped]

    # RecBole's configuration gives None for what is not set; its own is filled from files and the command line.
    config: dict[str, Any] = defaultdict(lambda: None)
    config.update(yaml.safe_load((Path(folder) / "recbole_gnn/properties/model/SRGNN.yaml").read_text()))
    config.update(
        embedding_size=dim, train_batch_size=batch_size, MAX_ITEM_LIST_LENGTH=longest,
        USER_ID_FIELD="session_id", ITEM_ID_FIELD="item_id", NEG_PREFIX="neg_", LIST_SUFFIX="_list",
        ITEM_LIST_LENGTH_FIELD="item_length", device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        train_neg_sample_args={"distribution": "none", "sample_num": "none"}, seed=2020, single_spec=True, worker=0,
    )  # fmt: skip

    # Its ids start at 1; 0 pads. The constructor of its data set reads files, so the fields are put in place instead.
    padded = torch.zeros(len(sessions), longest, dtype=torch.long)
    for row, session in zip(padded, sessions, strict=True):
        row[: len(session)] = torch.tensor(session) + 1

    class Given(dataset_class):
        def __init__(self) -> None:
            self.logger = getLogger()
            self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
            self.item_id_list_field, self.item_list_length_field = "item_id_list", "item_length"
            self.user_feat = self.item_feat = None
            self.inter_feat = interaction_class(
                {
                    "item_id": torch.tensor(targets) + 1,
                    "item_id_list": padded,
                    "item_length": torch.tensor([len(s) for s in sessions]),
                }
            )

        def num(self, field: str) -> int:
            assert field == self.iid_field
            return items + 1

    data = Given()
    data.session_graph_construction()
    loader = loader_class(config, data, None)
    net = model_class(config, data).to(config["device"])
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, weight_decay=weight_decay)
    net.train()

    def one(i: int) -> None:
        batch = loader.collate_fn(list(range(i * batch_size, (i + 1) * batch_size))).to(config["device"])
        optimizer.zero_grad()
        loss = net.calculate_loss(batch)
        loss.item()
        loss.backward()
        optimizer.step()

    return one
