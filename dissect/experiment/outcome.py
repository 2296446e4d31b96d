"""What training led to: ranks, metrics, densities, and the result that is written from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dissect.experiment import record
from dissect.experiment.account import Result, baseline_account, dataset_account, reach_account
from dissect.experiment.attention import attention_sample
from dissect.experiment.callbacks import LOGGED_RULES, Recorder, Selection
from dissect.experiment.held import Masks
from dissect.experiment.machine import device_name, peak_device_memory_mb, peak_memory_mb
from dissect.experiment.pruning import pruning_curve
from dissect.experiment.spec import SCHEMA
from dissect.experiment.splits import Splits
from dissect.experiment.strata import strata_arrays
from dissect.experiment.weights import write_weights
from dissect.models import SessionModel
from dissect.sparsity import Instrument
from dissect.training.evaluate import Ranks, by_length, latency_ms, metrics, rank_examples
from dissect.training.plan import Plan
from dissect.training.progress import counting
from dissect.training.recommended import Tally
from dissect.training.train import Loop

if TYPE_CHECKING:
    from dissect.experiment.run import Run


class Outcome:
    """A model in training or trained, with all that is needed to judge and record it.

    Parameters
    ----------
    run : Run
    phase : {"select", "refit"}
    splits : Splits
    model : SessionModel
    instrument : Instrument, optional
    plan : Plan
    chosen : dict
        What the phase before selected; empty in the first.
    """

    held: Masks
    loop: Loop
    recorder: Recorder
    selection: Selection | None

    def __init__(
        self,
        run: Run,
        phase: str,
        splits: Splits,
        model: SessionModel,
        instrument: Instrument | None,
        plan: Plan,
        chosen: Result,
    ) -> None:
        self.run, self.phase, self.splits, self.model = run, phase, splits, model
        self.instrument, self.plan, self._chosen = instrument, plan, chosen
        self.split = "test" if run.spec.protocol == "paper-code" else "valid"

    def rank(self, split: str, pruned: bool = False, tally: Tally | None = None) -> Ranks:
        """Ranks of a split's targets, by the mean weights or by the kept ones alone; `tally` counts the lists."""
        examples = {"valid": self.splits.valid, "test": self.splits.test}[split]
        assert examples is not None
        with counting(f"ranking {split}", self.run.quiet) as progress:
            options: Any = {"ties": self.run.spec.ties, "seen": self.splits.seen, "progress": progress, "tally": tally}
            options["part"] = self.run.world.slice(len(examples))
            if not pruned:
                mine = rank_examples(self.model, examples, **options)
            else:
                assert self.instrument is not None
                with self.instrument.masked():
                    mine = rank_examples(self.model, examples, **options)
        return np.concatenate(self.run.world.gather(mine))

    def chosen(self) -> Result:
        """The selected epoch, the steps that led to it, and its validation metrics."""
        s = self.selection
        if s is None:
            return self._chosen
        last = math.ceil(self.loop.step / self.plan.steps_per_epoch)
        epoch = last if self.run.spec.sparse else s.best_epoch["mrr@20"]
        steps = min(epoch * self.plan.steps_per_epoch, self.loop.step)
        return {"epoch": epoch, "steps": steps, "valid": s.metrics, "valid_pruned": s.metrics_pruned}

    def finish(self) -> Result:
        """Evaluate on the test set, write weights, ranks and curves; returns the result.

        Of several processes all evaluate, each its part, and one writes.
        """
        run, spec, folder, examples = self.run, self.run.spec, self.run.folder, self.splits.test_examples
        if self.selection is not None:
            self.selection.restore(self.model)
        self.loop.optimizer.state.clear()  # training is over; with a million items this is a gigabyte
        optimistic = spec.protocol == "paper-code"
        chosen = self.chosen()
        tally, tally_pruned = Tally(run.data.items), Tally(run.data.items)
        ranks = self.rank("test", tally=tally)
        test = metrics(ranks)
        protocol: Result = {"name": spec.protocol, "refit": spec.refit, "ties": spec.ties, "optimistic": optimistic}
        if optimistic and self.selection is not None and not spec.sparse:
            # The released habit: each metric's best epoch on the test set. Never comparable with an honest one.
            test = {name: self.selection.best[name] for name in test}
            protocol["epochs"] = self.selection.best_epoch
        arrays = {
            "rank": ranks,
            "session": np.asarray(examples.session, np.int32),
            "length": np.asarray(examples.lengths, np.int32),
            **strata_arrays(run.data),
        }
        pruned = None
        if self.instrument is not None:
            arrays["rank_pruned"] = self.rank("test", pruned=True, tally=tally_pruned)
            pruned = self._pruned(arrays["rank_pruned"], arrays["length"])
            pruned["reach"] = reach_account(run.data, tally_pruned, run.world)
            pruned["valid"] = None if optimistic else chosen["valid_pruned"]
            rules = tuple(dict.fromkeys((*LOGGED_RULES, spec.rule)))
            folder.write_json(record.THRESHOLDS, {rule: self.instrument.thresholds(rule) for rule in rules})
            if run.world.main:
                options: Any = {"ties": spec.ties, "seen": self.splits.seen}
                curve = pruning_curve(self.model, self.instrument, self.splits.test, rules, **options)
                folder.write_json(record.PRUNING, curve)
        sample = attention_sample(self.model, self.splits.test, run.data.first_id)
        if sample is not None:
            folder.write_json(record.ATTENTION, sample)
        if folder.writes:
            if self.instrument is not None:
                write_weights(self.instrument.export(), folder / record.PRUNED_WEIGHTS)
            write_weights(self.model, folder / record.WEIGHTS)  # variances too: `dissect prune` needs them
            np.savez_compressed(folder / record.RANKS, **arrays)  # type: ignore[arg-type]
        loop, recipe = self.loop, spec.recipe
        rate = loop.train_examples / max(loop.train_seconds, 1e-9)
        named = self.model.named_parameters()
        return {
            "schema": SCHEMA,
            "run_id": run.id,
            "model": spec.model,
            "recipe": {"encoder": recipe.encoder, "readout": recipe.readout, "scorer": recipe.scorer},
            "seed": spec.seed,
            "dataset": dataset_account(run.data, self.splits, spec),
            "protocol": protocol,
            "sparsify": self._sparsify(),
            "held": self._held(),
            "epoch": chosen["epoch"],
            "steps": loop.step,
            "valid": None if optimistic else chosen["valid"],
            "test": test,
            "by_length": by_length(ranks, arrays["length"]),
            "reach": reach_account(run.data, tally, run.world),
            "baselines": baseline_account(run.data, self.splits, spec),
            "density": self._density(),
            "lr_budget": round(loop.lr_budget, 4),
            "pruned": pruned,
            "parameters": sum(p.numel() for name, p in named if "log_sigma2" not in name and "shadow_" not in name),
            "seconds_per_epoch": round(len(self.splits.train) / rate, 2),
            "examples_per_second": round(rate, 1),
            "latency_ms": round(latency_ms(self.model, self.splits.test), 3),
            "device": device_name(run.device),
            "processes": run.world.size,
            "precision": spec.precision,
            "peak_memory_mb": peak_memory_mb(),
            "peak_device_memory_mb": peak_device_memory_mb(run.device),
        }

    def _sparsify(self) -> Result | None:
        if self.instrument is None:
            return None
        spec = self.run.spec
        names = ("prior", "noise", "rule", "threshold", "kl_scale", "shadows")
        return {"parts": list(self.instrument.modules), **{name: getattr(spec, name) for name in names}}

    def _held(self) -> Result | None:
        """Weights held at zero: of how many, which are not."""
        if not self.held:
            return None
        kept, total = (sum(int(f(mask)) for mask in self.held.values()) for f in (torch.sum, torch.numel))
        return {"delete": self.run.spec.delete, "mask": self.run.spec.mask, "kept": kept, "total": total}

    def _density(self) -> Result:
        if self.instrument is None:
            return {}
        end = self.run.spec.warmup[1]
        return {
            row["part"]: {
                "kept": row["kept"],
                "total": row["total"],
                "density": row["density"],
                "settled": self.recorder.settled(row["part"], self.loop, end),
                "moved": self.recorder.moved(row["part"], self.loop),
                **{name: row[name] for name in ("shadow_kept", "shadow_total") if name in row},
            }
            for row in self.instrument.density()
            if row["tensor"] is None
        }

    def _pruned(self, ranks: Ranks, lengths: Any) -> Result:
        assert self.instrument is not None
        kept, total = self.instrument.prune_counts()
        return {"test": metrics(ranks), "by_length": by_length(ranks, lengths), "kept": kept, "total": total}
