"""The command line: its contract, and one clear line for every kind of bad input."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dissect.cli import main
from dissect.data.layouts import EXPECTED
from dissect.experiment.record import copy_record
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISSECT_DATA", raising=False)

    def call(*arguments: Any) -> Ran:
        texts = [str(a) for a in arguments]
        monkeypatch.setattr(sys, "argv", ["dissect", *texts])
        status = 0
        try:
            main(texts)
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call


RECORDS = Path(__file__).resolve().parent.parent / "analyses" / "records"
TOY = ("--dataset", "toy", "--dim", 4, "--epochs", 1, "--device", "cpu", "--quiet")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "srgn"], ["unknown model 'srgn'", "srgnn", "meanpool", "did you mean 'srgnn'?"]),
        (["run", "srgnn", "--dataset", "diginetika"], ["diginetika", "demo", "diginetica"]),
        (["run", "srgnn", "--sparsify", "gnnn"], ["gnnn", "propagation", "readout"]),
        (["run", "srgnn", "--encoder", "gcn"], ["unknown encoder 'gcn'", "gated-graph", "identity"]),
        (["run", "srgnn", "--noise", "loud"], ["unknown noise 'loud'", "local", "weight"]),
        (["run", "srgnn", "--prior", "flat"], ["unknown prior 'flat'", "log-uniform"]),
        (["run", "srgnn", "--rule", "x"], ["unknown rule 'x'", "log-alpha", "magnitude", "signed", "snr"]),
        (["run", "srgnn", "--ties", "x"], ["unknown tie rule 'x'", "half"]),
        (["run", "srgnn", "--protocol", "x"], ["unknown protocol 'x'", "honest", "paper-code"]),
        (["run", "srgnn", "--device", "tpu"], ["device 'tpu' is not available", "cpu"]),
        (["run", "srgnn", "--dim", "0"], ["--dim is 0", ">= 1"]),
        (["run", "srgnn", "--lr", "-1"], ["--lr is -1.0", "> 0"]),
        (["run", "srgnn", "--warmup", "0.5", "0.2"], ["--warmup is 0.5 0.2", "START <= END"]),
        (["run", "srgnn", "--warmup", "nan", "1"], ["--warmup is nan 1.0", "finite"]),
        (["run", "srgnn", "--kl-scale", "nan"], ["--kl-scale is nan", "finite"]),
        (["run", "srgnn", "--weight-decay", "nan"], ["--weight-decay is nan", "finite"]),
        (["run", "srgnn", "--threshold", "nan"], ["--threshold is nan", "finite"]),
        (["run", "srgnn", "--threshold=-inf"], ["--threshold is -inf", "finite"]),
        (["run", "srgnn", "--lr", "inf"], ["--lr is inf", "finite"]),
        (["run", "srgnn", "--lr-sigma", "nan"], ["--lr-sigma is nan", "finite"]),
        (["run", "srgnn", "--log-sigma2", "inf"], ["--log-sigma2 is inf", "finite"]),
        (["run", "srgnn", "--lr-gamma", "nan"], ["--lr-gamma is nan"]),
        (["run", "sgnnhn", "--option", "encoder.steps=0"], ["steps is 0; it must be >= 1"]),
        (["sweep", "spop"], ["spop counts", "no training step"]),
        (["run", "srgnn", "--sparsify", "none", "--log-sigma2", "-5"], ["wraps nothing; leave out --log-sigma2"]),
        (["run", "srgnn", "--sigma", "inf"], ["--sigma is inf", "finite"]),
        (["bench", "srgnn", "--sigma", "inf"], ["--sigma is inf", "finite"]),
        (["run", "srgnn", "--sigma", "5"], ["--sigma 5 changes nothing: the scorer dot has no scale"]),
        (["run", "attenmixer-lp", "--p", "2"], ["'attenmixer': p is 2.0; the largest of the maps"]),
        (["run", "srgnn", "--protocol", "paper-code", "--refit"], ["--refit", "--protocol paper-code", "leave one"]),
        (["run", "srgnn", "--epoch"], ["--epoch", "--epochs"]),
        (["run", "srgnn", "--dim", "ten"], ["--dim", "ten"]),
        (["run", "srgnn", "--sparsify", "none", "--noise", "weight"], ["--sparsify none wraps nothing", "--noise"]),
        (["run", "srgnn", "--steps", "0"], ["--steps", "0", "1"]),
        (["bench", "srgnn", "--sweep", "dim", "--dim", "8"], ["--sweep sets sizes", "--dim"]),
        (["bench", "srgnn", "--sweep", "width"], ["unknown --sweep axis 'width'", "items, batch, dim, length"]),
        (["run"], ["needs a MODEL", "--resume"]),
        (["run", "meanpool"], ["have no weights", "--sparsify none"]),
        (["run", "vsknnn"], ["unknown model 'vsknnn'", "did you mean 'vsknn'?", "srgnn", "spop"]),
        (["run", "vsknn", "--sparsify", "gnn"], ["--sparsify gnn: vsknn counts", "use --sparsify none"]),
        (["run", "spop", "--lr", "1", "--dim", "100"], ["spop counts", "no use for --dim, --lr"]),
        (["run", "sr", "--steps", "4"], ["sr counts", "no use for --steps"]),
        (["run", "sr", "--device", "cuda"], ["sr counts, on the CPU", "--device cuda"]),
        (["run", "sr", "--setting", "paper"], ["sr counts", "--setting paper"]),
        (["run", "vsknn", "--option", "k=0"], ["'vsknn'", "k is 0", ">= 1"]),
        (["run", "vsknn", "--option", "K=3"], ["unknown option 'K'", "it takes: k, sample_size"]),
        (["run", "sr", "--dry-run"], ["sr counts", "no weights"]),
        (
            ["run", "narm", "--shadows", "4", "--dry-run"],
            ["--shadows 4", "'encoder.cell.hidden'", "; leave out --shadows, or"],
        ),
        (
            ["run", "lessr", "--noise", "row"],
            ["--noise row", "'encoder.layers.0.cell", "; use --noise local or weight"],
        ),
        (["run", "attenmixer-pr", "--dry-run"], ["at most 10", "'demo' has 64"]),
        (["run", "srgnn", "--option", "steps=2"], ["did you mean encoder.steps?"]),
        (["bench", "sr"], ["sr counts", "no training step"]),
        (["bench", "sr", "--sweep", "dim"], ["sr counts", "no training step"]),
        (["run", "--resume", "nowhere"], ["no run folder at nowhere"]),
        (["run", "--resume", "nowhere", "--lr", "1"], ["leave out --lr"]),
        (["plot", "nowhere"], ["no run folder at nowhere"]),
        (["prune", "nowhere"], ["no run folder at nowhere"]),
        (["recommend", "nowhere", "1"], ["no run folder at nowhere"]),
        (["bench", "srgnn", "--against", "nowhere.py:step"], ["FILE:CALLABLE", "nowhere.py is no file"]),
        (["data", "stats", "nothing"], ["nothing", "demo"]),
        (["walk"], ["walk"]),
    ],
)
def test_wrong_use_gets_one_line_with_the_choices(run, arguments: list[str], expected: list[str]) -> None:
    done = run(*arguments)
    assert done.status == 2
    for text in expected:
        assert text in done.line
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


@pytest.mark.parametrize(("arguments", "command"), [([], "recommend"), (["data"], "fetch")])
def test_a_bare_group_prints_its_help(run, arguments: list[str], command: str) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert done.err == ""
    assert done.out == run(*arguments, "--help").out
    assert any(line.split()[:1] == [command] for line in done.out.splitlines())


def test_data_commands_convert_and_describe(run, toy_data: Path, tmp_path: Path) -> None:
    done = run("data", "convert", "toy", "--to", "srgnn", "--out", tmp_path / "o", "--data-dir", toy_data)
    assert done.status == 0
    assert "300 training and 60 test sessions of toy (30 items, without times) as srgnn" in done.out
    done = run("data", "stats", "o", "--data-dir", tmp_path, "--out", tmp_path / "f")
    assert done.out.startswith("as in the paper's Table 1")
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["o_stats.png", "o_stats.svg"]
    assert json.loads(run("data", "stats", "o", "--data-dir", tmp_path, "--json").out)["sessions"] == 300
    # A folder will do, as for convert.
    assert json.loads(run("data", "stats", tmp_path / "o", "--json").out)["sessions"] == 300
    assert run("data", "stats", tmp_path / "o", "--out", tmp_path / "g").status == 0
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == ["o_stats.png", "o_stats.svg"]
    assert "holds no data set: expected" in run("data", "stats", tmp_path / "f").line
    done = run("data", "fetch", "retailrocket")
    assert done.status == 2
    assert "log in at https://www.kaggle.com" in done.line


def test_convert_says_what_its_source_may_be(run) -> None:
    words = [word.rstrip(",.") for word in run("data", "convert", "--help").out.split()]
    for name in re.findall(r"\S+\.(?:txt|inter|parquet)", EXPECTED):
        assert name in words
    assert "train_timestamps.txt" in words


def test_stats_of_one_file_say_how_it_was_split_and_those_of_a_preparation_what_it_dropped(run, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/sessions.txt").write_text("0,1\n" * 8 + "1,2\n0,1\n")
    done = run("data", "stats", tmp_path / "one")
    rule = "the last 20% of the sessions in sessions.txt, in the file's order (there are no times)"
    assert f"the test part is {rule}\n" in done.out
    assert json.loads(run("data", "stats", tmp_path / "one", "--json").out)["test_part"] == rule
    assert "items that training never shows (kept)" in done.out
    assert "dropped in preparation" not in done.out
    parts = [["a", "b", "a"]] * 8 + [["x", "a"], ["b", "x", "a", "y"]]
    rows = [f"{s},{item},{1_463_000_000 + 100 * s + k}" for s, part in enumerate(parts) for k, item in enumerate(part)]
    (tmp_path / "raw.csv").write_text("s,i,t\n" + "\n".join(rows) + "\n")
    run("data", "prepare", "--raw", tmp_path / "raw.csv", "--columns", "session=s,item=i,time=t",
        "--item-clicks", 1, "--out", tmp_path / "made")  # fmt: skip
    out = run("data", "stats", tmp_path / "made").out
    assert re.search(r"dropped in preparation: items that training never shows +2\n", out)
    assert re.search(r"dropped in preparation: clicks on these items +3\n", out)
    assert re.search(r"dropped in preparation: sessions left with fewer than 2 clicks +1\n", out)
    assert json.loads(run("data", "stats", tmp_path / "made", "--json").out)["unseen_clicks_dropped"] == 3


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch OWNED",)


def data_set(folder: Path, train: bytes, test: bytes = b"") -> Path:
    (folder / "bad").mkdir()
    (folder / "bad" / "all_train_seq.txt").write_bytes(train)
    (folder / "bad" / "test.txt").write_bytes(test or pickle.dumps(([[1]], [2])))
    return folder


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (pickle.dumps(_Malicious()), ["all_train_seq.txt", "refused"]),
        (pickle.dumps([[1, 2, 3]] * 500)[:-40], ["all_train_seq.txt", "truncated"]),
        (b"", ["all_train_seq.txt", "empty"]),
        (pickle.dumps([[1, 2], [0, 2]]), ["all_train_seq.txt", "0"]),
        (pickle.dumps([[1, 2], ["a"]]), ["all_train_seq.txt"]),
    ],
)
def test_a_bad_pickle_gets_one_line_and_nothing_of_it_runs(
    run, tmp_path: Path, content: bytes, expected: list[str]
) -> None:
    done = run("run", "srgnn", "--dataset", "bad", "--data-dir", data_set(tmp_path, content))
    assert done.status == 2
    assert all(text in done.line for text in expected), done.line
    assert not (tmp_path / "OWNED").exists()


def test_test_ids_out_of_range(run, tmp_path: Path) -> None:
    bad = data_set(tmp_path, pickle.dumps([[1, 2, 3]]), pickle.dumps(([[1]], [9])))
    line = run("run", "srgnn", "--dataset", "bad", "--data-dir", bad).line
    assert "test.txt" in line
    assert "9" in line


@pytest.mark.parametrize(
    ("text", "expected"), [("1,2\n\n3,4\n", "line 2"), ("1,2\n3,x\n", "line 2"), ("-1,2\n", "line 1")]
)
def test_a_bad_line_of_text_is_named(run, tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.txt").write_text(text)
    (tmp_path / "bad" / "test.txt").write_text("1,2\n")
    line = run("run", "srgnn", "--dataset", "bad", "--data-dir", tmp_path).line
    assert "train.txt" in line
    assert expected in line


def test_an_id_far_beyond_the_others_is_a_slip(run, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.txt").write_text("1,2\n2,1,2000000000\n")
    (tmp_path / "bad" / "test.txt").write_text("1,2\n")
    line = run("run", "srgnn", "--dataset", "bad", "--data-dir", tmp_path).line
    assert "the largest item id is 2000000000, yet only 3 ids occur" in line
    assert "num_items.txt" in line


def test_damaged_files_of_a_run_get_one_line(run, toy_data: Path) -> None:
    assert run("run", "srgnn", *TOY, "--data-dir", toy_data, "--loss", "plain").status == 0
    folder = next(Path("runs").iterdir())
    again = run("run", "srgnn", *TOY, "--data-dir", toy_data)
    assert "finished with --loss plain; --force runs it again" in again.err
    done = run("prune", folder, "--rule", "magnitude", "--out", Path("runs") / folder.name / "spec.json" / "x")
    assert "can't write" in done.line
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "model.safetensors is damaged" in run("recommend", folder, 1).line
    assert "model.safetensors is damaged" in run("prune", folder).line
    for text in ("{", "{}", "[]", "[1]", "null"):
        (folder / "result.json").write_text(text)
        assert "result.json is damaged" in run("recommend", folder, 1).line
        assert "result.json is damaged" in run("compare", folder).line


def test_an_output_that_cannot_be_written(run, toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("run", "srgnn", *TOY, "--data-dir", toy_data, "--out", tmp_path / "file" / "runs")
    assert done.status == 2
    assert "can't write to" in done.line
    assert "--out" in done.line


def test_run_prints_a_table_and_json_and_refuses_nothing_it_did(run, toy_data: Path) -> None:
    arguments = ("run", "srgnn", *TOY, "--data-dir", toy_data, "--json")
    done = run(*arguments)
    assert done.status == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert "not settled" in done.out
    change = result["density"]["propagation"]["moved"]
    assert f"{change:+.3f} in the last quarter" in done.out
    assert f"{result['pruned']['kept']:,}" in done.out
    folder = next(Path("runs").iterdir())
    assert str(folder) in done.out
    assert {p.name for p in (folder / "figures").iterdir()} == {"density.svg", "density.png"}
    again = run(*arguments)
    assert json.loads(again.out.splitlines()[-1]) == result
    assert "finished; --force runs it again" in again.err
    resumed = run("run", "--resume", folder, "--json")
    assert json.loads(resumed.out.splitlines()[-1]) == result
    forced = run(*arguments, "--force")
    assert json.loads(forced.out.splitlines()[-1])["test"] == result["test"]

    plotted = run("plot", folder, "--out", "figure")
    assert plotted.out.split() == ["figure/density.svg", "figure/density.png"]
    pruned = run("prune", folder, "--rule", "magnitude", "--threshold", 0.05, "--out", "small.safetensors", "--json")
    assert json.loads(pruned.out.splitlines()[-1])["rule"] == "magnitude"
    own = (folder / "pruned.safetensors").read_bytes()
    run("prune", folder, "--rule", "magnitude")
    assert (folder / "pruned-magnitude-0.1.safetensors").exists()
    run("prune", folder, "--threshold", 2.5)
    assert (folder / "pruned-log-alpha-2.5.safetensors").exists()
    run("prune", folder, "--threshold", 1)
    assert (folder / "pruned-log-alpha-1.safetensors").exists()
    assert (folder / "pruned.safetensors").read_bytes() == own
    (folder / "pruned.safetensors").unlink()
    run("prune", folder, "--rule", "log-alpha", "--threshold", 3)
    assert (folder / "pruned.safetensors").read_bytes() == own
    assert not (folder / "pruned-log-alpha-3.safetensors").exists()
    assert "finite" in run("prune", folder, "--threshold", "nan").line
    found = json.loads(run("recommend", folder, 1, 2, "-k", 4).out)
    assert len(found["items"]) == 4
    assert "ids 0 to 29" in run("recommend", folder, 30).line
    starting = run("run", "srgnn", *TOY, "--data-dir", toy_data, "--init", folder, "--json")
    assert json.loads(starting.out.splitlines()[-1])["run_id"] != result["run_id"]


def test_a_run_can_be_used_from_another_directory(
    run, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy_data, "sets")
    assert run("run", "srgnn", *TOY, "--data-dir", "sets").status == 0
    folder = next(Path("runs").resolve().iterdir())
    assert json.loads((folder / "spec.json").read_text())["data_dir"] == str(tmp_path / "sets")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("prune", folder).status == 0
    (folder / "result.json").unlink()
    done = run("run", "--resume", folder, "--quiet")
    assert done.status == 0, done.err
    (tmp_path / "sets").rename("moved")
    assert "does not exist" in run("prune", folder).line
    done = run("prune", folder, "--data-dir", "moved")
    assert done.status == 0, done.err
    (folder / "result.json").unlink()
    done = run("run", "--resume", folder, "--data-dir", "moved", "--quiet")
    assert done.status == 0, done.err


def test_a_record_without_weights_says_so(run, toy_data: Path) -> None:
    assert run("run", "srgnn", *TOY, "--data-dir", toy_data).status == 0
    folder = copy_record(next(Path("runs").iterdir()), "record")
    shutil.rmtree("runs")
    lines = {run("prune", folder).line, run("recommend", folder, 1).line}
    assert lines == {
        "dissect: no weights at record/model.safetensors: a committed record leaves them out; run it again to have them"
    }
    assert "no weights at record/pruned.safetensors" in run("recommend", folder, 1, "--pruned").line


def test_committed_records_without_weights_say_so(run) -> None:
    records = [p for p in sorted(RECORDS.iterdir()) if (p / "result.json").exists()]
    assert records
    for path in records:
        assert f"no weights at {path / 'model.safetensors'}" in run("recommend", path, 5).line
        done = run("prune", path)
        assert done.status == 2
        assert "no weights at" in done.line or "nothing to prune" in done.line


def test_a_result_of_an_older_version_says_so(run, toy_data: Path) -> None:
    assert run("run", "srgnn", *TOY, "--data-dir", toy_data).status == 0
    folder = next(Path("runs").iterdir())
    result = json.loads((folder / "result.json").read_text())
    del result["dataset"]["first_id"]
    (folder / "result.json").write_text(json.dumps(result))
    assert "result.json lacks first_id" in run("recommend", folder, 5).line


def test_an_unfinished_run_is_not_overwritten(run, toy_data: Path) -> None:
    assert run("run", "srgnn", *TOY, "--data-dir", toy_data).status == 0
    folder = next(Path("runs").iterdir())
    (folder / "result.json").unlink()
    done = run("run", "srgnn", *TOY, "--data-dir", toy_data)
    assert done.status == 2
    assert f"--resume {folder}" in done.line


def test_dense_runs_print_no_density(run, toy_data: Path) -> None:
    done = run("run", "srgnn", *TOY, "--data-dir", toy_data, "--sparsify", "none", "--protocol", "paper-code")
    assert done.status == 0, done.err
    assert "density" not in done.out
    assert "optimistic" in done.out


def test_a_control_that_counts_runs_and_is_compared(run, toy_data: Path) -> None:
    done = run("run", "spop", "--dataset", "toy", "--data-dir", toy_data, "--ties", "pessimistic", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert "counted, not trained" in done.out
    assert "0 parameters" in done.out
    assert result["protocol"]["ties"] == "pessimistic"
    spop = f"runs/{result['run_id']}"
    assert "finished; --force runs it again" in run("run", "spop", *TOY[:2], "--data-dir", toy_data, "--ties",
                                                    "pessimistic").err  # fmt: skip
    arguments = (*TOY, "--data-dir", toy_data, "--sparsify", "none", "--ties", "pessimistic")
    other = json.loads(run("run", "srgnn", *arguments, "--json").out.splitlines()[-1])
    compared = run("compare", spop, f"runs/{other['run_id']}", "--resamples", 100)
    assert compared.status == 0, compared.err
    assert "baseline" in compared.out
    assert "no densities to draw" in run("plot", spop).line
    assert "nothing to prune" in run("prune", spop).line
    assert "spop counts" in run("intervene", spop).line
    assert len(json.loads(run("recommend", spop, 1, 2, "-k", 4).out)["items"]) == 4


def test_recommend_by_name(run, toy_data: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_data / "toy", tmp_path / "data/toy")
    made = json.loads(run("run", "srgnn", *TOY, "--data-dir", "data", "--json").out.splitlines()[-1])
    path = f"runs/{made['run_id']}"
    assert "no names at" in run("recommend", path, "shoe 1", "--names").line
    (tmp_path / "data/toy/items.txt").write_text("".join(f"shoe {i}\n" for i in range(30)))
    by_id = json.loads(run("recommend", path, 3, 4, "-k", 2).out)
    by_name = json.loads(run("recommend", path, "shoe 3", "shoe 4", "-k", 2, "--names").out)
    assert by_name["session"] == ["shoe 3", "shoe 4"]
    assert [row["item"] for row in by_name["items"]] == [f"shoe {row['item']}" for row in by_id["items"]]
    assert [row["score"] for row in by_name["items"]] == [row["score"] for row in by_id["items"]]
    assert "no item 'boot' in" in run("recommend", path, "boot", "--names").line
    assert "'shoe 3' is not a valid integer" in run("recommend", path, "shoe 3").err
    (tmp_path / "data/toy/items.txt").write_text("one\n")
    assert "1 names for 30 items" in run("recommend", path, "one", "--names").line
    (tmp_path / "data/toy").rename(tmp_path / "data/moved")
    assert "toy" in run("recommend", path, "one", "--names").line


def test_lists(run, toy_data: Path) -> None:
    assert "V-SKNN" in run("models").out
    assert "|| h_n]" in run("models").out  # no markup
    assert "adamw 0.001" in run("models").out
    assert "cosine: sigma cos(q, e)" in run("models").out
    models = run("models").out
    assert "srgnn" in models
    assert "edge_in" in models
    listed = run("data", "list", "--data-dir", toy_data).out
    assert "toy" in listed
    assert "diginetica" in listed
    stats = json.loads(run("data", "stats", "toy", "--data-dir", toy_data, "--json").out)
    assert stats["items"] == 30


def test_bench_reports_what_the_contract_names(run, toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(
        "import time\ndef slow(*, sessions, targets, items, batch_size, **_):\n"
        "    assert len(sessions) == len(targets) and max(max(s) for s in sessions) < items == 30\n"
        "    return lambda i: time.sleep(0.05)\n"
    )
    done = run(
        "bench", "srgnn", "--dataset", "toy", "--data-dir", toy_data, "--dim", 4, "--batch-size", 16, "--rounds", 5,
        "--device", "cpu", "--sparsify", "gnn", "--against", "peer.py:slow", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    out = json.loads(done.out.splitlines()[-1])
    assert set(out["stages_ms"]) == {"batch", "forward", "loss", "backward", "optimiser"}
    assert out["limit_ratio"] == pytest.approx(out["limit_ms"] / out["step_ms"], abs=2e-3)
    assert out["peers"][0]["ms"] >= 50
    assert set(out["loss_ms"]) >= {"tiled", "plain"}
    assert out["evaluation"]["examples_per_second"] > 0
    assert out["stages_ms"]["batch"] > 0
    assert out["wrapped_over_dense"]["low"] <= out["wrapped_over_dense"]["ratio"]


def test_debug_shows_the_traceback(toy_data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dissect", "run", "nothing", "--debug"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr


def test_the_id_of_a_default_run_is_that_of_its_spec(toy_data: Path) -> None:
    spec = Spec.create("srgnn", dataset="toy", data_dir=str(toy_data))
    assert Run(spec).folder.path.name == spec.run_id(Run(spec).data.sha256)
