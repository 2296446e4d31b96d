"""The published figures reproduced: LeNet-300-100 on MNIST, sparsified by this project's instrument and loop.

Molchanov et al. 2017 (arXiv 1701.05369), Table 1, for sparse variational dropout: test error 1.92 %, 98.9, 97.2 and
62.0 % of the three matrices' weights dropped, and as compression, weights / kept weights, 68. To reach: a test error of
the pruned network of at most 2.2 % and a compression of 50 to 90. Kept is log alpha < 3; biases are not counted.

Two recipes, both with Adam, batches of 100 and s = log sigma^2 = -10 at first:

``published``
    200 epochs. All parameters share one learning rate, 1e-3 for 100 epochs, then linear to 0. The weight of the KL
    is 0 for five epochs, then rises linearly to 1 at epoch 20.
``fast``
    Not a published recipe: 60 epochs, the means' rate 5e-3 for 20 of them, then linear to 0; s has a rate of its own,
    1e-2, held constant; the KL weight rises from epoch 1 to epoch 4.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.data.mnist import PUBLISHED_SHA256, Mnist, load_mnist
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.checkpoint import Checkpoint, Interrupted
from dissect.experiment.machine import environment
from dissect.experiment.record import RunFolder
from dissect.sparsity import Instrument, wrap
from dissect.training.plan import Callback, Plan
from dissect.training.progress import Progress
from dissect.training.train import Loop

SCHEMA = 1
PARTS = {"fc1": ["fc1"], "fc2": ["fc2"], "fc3": ["fc3"]}
#: Percent and weights / kept weights, from Table 1.
PUBLISHED = {"error": 1.92, "compression": 68.0, "sparsity": {"fc1": 98.9, "fc2": 97.2, "fc3": 62.0}}
BAND = {"error": (0.0, 2.2), "compression": (50.0, 90.0)}
#: Training images on which the error is followed: those of the first batch of an evaluation.
FOLLOWED = 10_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what training does, but for the seed and the data."""

    name: str
    epochs: int
    lr: float
    lr_sigma: float
    """Learning rate of s."""
    sigma_decays: bool
    """Whether that rate follows the schedule of the others."""
    warmup: tuple[float, float]
    """Shares of the epochs at which the KL weight leaves 0 and is 1."""
    constant: float = 0.5
    """Share of the epochs at the full rate; from there it falls linearly, to 0 after the last."""
    batch_size: int = 100
    log_sigma2: float = -10.0

    def lr_factor(self, epoch: int) -> float:
        """What the learning rate is multiplied by in an epoch, counted from 0."""
        return min(1.0, (self.epochs - epoch) / (self.epochs * (1 - self.constant)))


RECIPES = {
    "published": Recipe("published", 200, 1e-3, 1e-3, sigma_decays=True, warmup=(5 / 200, 20 / 200)),
    "fast": Recipe("fast", 60, 5e-3, 1e-2, sigma_decays=False, warmup=(1 / 60, 4 / 60), constant=1 / 3),
}


def lenet() -> nn.Sequential:
    """LeNet-300-100: 784 pixels, 300 and 100 rectified units, 10 digits."""
    layers = {
        "fc1": nn.Linear(784, 300), "relu1": nn.ReLU(),
        "fc2": nn.Linear(300, 100), "relu2": nn.ReLU(),
        "fc3": nn.Linear(100, 10),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


class _Digits:
    """Images and labels as two tensors, from which batches are gathered."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.clicks = self.images = torch.from_numpy(images)  # the loop asks `clicks` for the device
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    @torch.no_grad()
    def error(self, model: nn.Module, most: int | None = None) -> float:
        """Percent of the images, or of the first `most`, whose likeliest digit is the wrong one."""
        model.eval()
        images, labels = self.images[:most], self.labels[:most]
        wrong = sum(
            int((model(rows).argmax(1) != digits).sum())
            for rows, digits in zip(images.split(FOLLOWED), labels.split(FOLLOWED), strict=True)
        )
        model.train()
        return round(100 * wrong / len(labels), 4)


class _LenetLoop(Loop):
    """The loop with cross-entropy over digits, and the recipe's schedule."""

    recipe: Recipe

    def objective(self, batch: Any) -> tuple[Tensor, Tensor]:
        images, labels = batch
        nll = F.cross_entropy(self.model(images), labels)
        return nll, nll

    def _set_rates(self, epoch: int) -> None:
        factor = self.recipe.lr_factor(epoch)
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            constant = group["name"] == "sigma" and not self.recipe.sigma_decays
            group["lr"] = base if constant else base * factor


class _Recorder(Callback):
    """Write a row of metrics and the densities after each epoch."""

    name = "recorder"

    def __init__(self, folder: RunFolder, instrument: Instrument, train: _Digits, test: _Digits) -> None:
        self.folder, self.instrument, self.train, self.test = folder, instrument, train, test
        self.sum, self.count = 0.0, 0  # of the batches' nll in this epoch
        self.latest: dict[str, float] = {}
        self.errors: dict[str, float] = {}

    def on_step(self, loop: Loop) -> None:
        """Add up the loss."""
        self.sum += float(loop.nll)
        self.count += 1

    def on_epoch(self, loop: Loop) -> None:
        """Evaluate, and write."""
        self.errors = {}
        with self.instrument.masked():
            self._evaluate("_pruned", loop.model)
        self._evaluate("", loop.model)
        rates = {group["name"]: group["lr"] for group in loop.optimizer.param_groups}
        rows = self.instrument.density()
        kept = {row["part"]: row["kept"] for row in rows if row["tensor"] is None}
        self.latest.update({row["part"]: row["density"] for row in rows if row["tensor"] is None})
        metrics = {
            "kind": "epoch",
            "step": loop.step,
            "epoch": loop.epoch,
            "nll": round(self.sum / self.count, 6),
            "kl": round(float(self.instrument.kl()), 3),
            "kl_weight": round(self.instrument.kl_weight(loop.step) * self.instrument.examples, 6),
            "lr": rates["wrapped"],
            "lr_sigma": rates["sigma"],
            "lr_budget": round(loop.lr_budget, 6),
            **self.errors,
            "kept": kept,
            "seconds": round(loop.train_seconds, 1),
        }
        self.sum, self.count = 0.0, 0
        self.folder.append(record.METRICS, [metrics])
        self.folder.append(record.DENSITY, [{"step": loop.step, "epoch": loop.epoch, **row} for row in rows])

    def _evaluate(self, which: str, model: nn.Module) -> None:
        self.errors[f"train_error{which}"] = self.train.error(model, FOLLOWED)
        self.errors[f"test_error{which}"] = self.test.error(model)

    def state_dict(self) -> dict[str, Any]:
        """The running sum and the last evaluation."""
        return {"sum": self.sum, "count": self.count, "latest": self.latest, "errors": self.errors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.sum, self.count, self.errors = state["sum"], state["count"], state["errors"]
        self.latest.update(state["latest"])  # in place: the progress bar reads this dict


def sizes(counts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Kept and total weights of all layers, compression = total / kept, and each layer's sparsity in percent.

    Parameters
    ----------
    counts : mapping
        Layer -> (kept, total).

    Returns
    -------
    dict
        Keys ``kept``, ``total``, ``compression`` (None where nothing is kept) and ``sparsity`` (layer -> percent).
    """
    kept, total = (sum(column) for column in zip(*counts.values(), strict=True))
    return {
        "kept": kept,
        "total": total,
        "compression": round(total / kept, 3) if kept else None,
        "sparsity": {layer: round(100 * (1 - k / n), 3) for layer, (k, n) in counts.items()},
    }


def in_band(result: Mapping[str, Any]) -> bool:
    """Whether a result on the published digits lies in `BAND`; False on other data."""
    values = {name: result[name] for name in BAND}
    return result["sha256"] == PUBLISHED_SHA256 and all(
        value is not None and BAND[name][0] <= value <= BAND[name][1] for name, value in values.items()
    )


def run_lenet(
    seed: int = 0,
    recipe: str | Recipe = "published",
    epochs: int | None = None,
    *,
    out: Path | str = "runs",
    data_dir: Path | str | None = None,
    quiet: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Train, prune and evaluate one LeNet-300-100 on the CPU; a finished run is not repeated, a begun one goes on.

    The run folder, ``out/lenet-RECIPE-xxxxxxxx``, is named for the recipe, the seed and the data. Equal arguments give
    equal figures on one machine with one number of threads.

    Parameters
    ----------
    seed : int
        Of the weights, the order of the images and the noise.
    recipe : {'published', 'fast'} or Recipe
    epochs : int, optional
        In place of the recipe's; schedule and warm-up stretch with it.
    out : path
        Directory for run folders.
    data_dir : path, optional
        Directory with the folder ``mnist``; see `dissect.data.mnist.load_mnist`.
    quiet : bool
        No progress.
    resume : bool, default True
        False starts over.

    Returns
    -------
    dict
        The content of result.json: ``error`` (percent of the test images, with the pruned weights),
        ``error_unpruned``, ``compression``, ``sparsity``, ``kept``, ``total``, ``in_band`` and how they came about.

    Raises
    ------
    DissectError
        For an unknown recipe, data that can't be had, a loss that is not finite, and on SIGINT or SIGTERM, after the
        state is saved.
    """
    chosen = _recipe(recipe, epochs)
    data = load_mnist(data_dir, progress=not quiet)
    text = json.dumps([SCHEMA, data.sha256, seed, asdict(chosen)], sort_keys=True)
    folder = RunFolder(Path(out) / f"lenet-{chosen.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    if not resume and (folder.result is not None or (folder / record.STATE).exists()):
        with folder.taken():
            pass
        shutil.rmtree(folder.path)
    done = folder.result
    if done is not None:
        if not quiet:
            sys.stderr.write(f"{folder.path} holds this run, finished\n")
        return done
    try:
        with folder.taken(), torch.random.fork_rng(devices=[]):
            return _train(seed, chosen, data, folder, quiet)
    except Interrupted as why:
        raise DissectError(
            f"stopped at step {why.step}, saved in {folder.path}; go on with the same command", 128 + why.signum
        ) from None


def _recipe(recipe: str | Recipe, epochs: int | None) -> Recipe:
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise DissectError(f"unknown recipe {recipe!r}; choose from {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if recipe.epochs < 1:
        raise DissectError(f"epochs must be at least 1, got {recipe.epochs}")
    return recipe


def _train(seed: int, recipe: Recipe, data: Mnist, folder: RunFolder, quiet: bool) -> dict[str, Any]:
    train, test = _Digits(data.train_images, data.train_labels), _Digits(data.test_images, data.test_labels)
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    plan = Plan(len(train), recipe.batch_size, steps, seed)
    torch.manual_seed(seed)
    model = lenet()
    instrument = wrap(
        model, PARTS, examples=len(train), steps=steps, log_sigma2=recipe.log_sigma2, warmup=recipe.warmup
    )
    optimizer = torch.optim.Adam(instrument.param_groups(recipe.lr, recipe.lr_sigma), fused=True)
    recorder = _Recorder(folder, instrument, train, test)
    bar = Progress(
        f"LeNet {recipe.name}, seed {seed}", lambda: float(instrument.kl()) / len(train), recorder.latest, quiet
    )
    examples: Any = train
    loop = _LenetLoop(model, examples, optimizer, plan, [recorder, bar, Checkpoint(folder, "select")], instrument)
    loop.recipe = recipe
    state = _saved(folder / record.STATE)
    folder.cut_logs({} if state is None else state["logs"])
    if state is not None:
        loop.load_state_dict(state)
    setting = environment(data.sha256, torch.device("cpu"))
    folder.write_json(record.ENVIRONMENT, setting)
    loop.run()
    counts = {row["part"]: (row["kept"], row["total"]) for row in instrument.density() if row["tensor"] is None}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "control": "lenet-300-100",
        "error": test.error(instrument.export()),
        "error_unpruned": test.error(model),
        **sizes(counts),
        "seed": seed,
        "epochs": recipe.epochs,
        "steps": loop.step,
        "recipe": asdict(recipe),
        "rule": instrument.rule,
        "threshold": instrument.threshold,
        "lr_budget": round(loop.lr_budget, 6),
        "train_examples": len(train),
        "test_examples": len(test),
        "published": PUBLISHED,
        "band": BAND,
        "seconds": round(loop.train_seconds, 1),
        "sha256": data.sha256,
        "versions": setting["versions"],
        "device": setting["device"],
        "threads": setting["threads"],
    }
    result = json.loads(json.dumps({**result, "in_band": in_band(result)}))  # tuples as the file has them, lists
    folder.write_json(record.RESULT, result)
    return result


def _saved(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise DissectError(f"{path} is damaged ({type(error).__name__}); delete it to start over") from None
