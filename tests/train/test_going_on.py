"""Runs that the same command starts and goes on with, and where their state is."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gfl_edge.errors import CheckpointError, InputError
from tests.support.squares_run import interrupted_at, losses
from train import saved as saved_state
from train import train as command
from train.checkpoint import LAST, Checkpoint
from train.config import read_config
from train.distributed import Process, ProcessesError, _explained, joined, said_once
from train.loop import TrainingError
from train.metrics import LOSSES, METRICS, RunLog
from train.run import Run, train
from train.saved import alone_in, find_state

CPU = torch.device("cpu")
FIRST, SECOND = Process(CPU, 0, 2), Process(CPU, 1, 2)


def test_the_same_command_starts_a_run_and_goes_on_with_it(toml, capsys, monkeypatch):
    """Also where another number of processes left it, whose random numbers are of no use."""
    whole = train(read_config(toml, ['train.output="whole"']))
    words = [str(toml), "--auto-resume", "--set", "train.checkpoint_steps=1"]
    with monkeypatch.context() as patch:
        patch.setattr("train.loop.Trainer._step", interrupted_at(3))
        assert command.main(words) == 1
    left = torch.load("run/last.pt", weights_only=True)
    left["training"]["random"] *= 3
    torch.save(left, "run/last.pt")
    assert command.main(words) == 0
    assert losses("run") == losses("whole")
    assert Checkpoint.load("run/last.pt").metrics == whole
    assert len(Checkpoint.load("run/last.pt").training["random"]) == 1
    capsys.readouterr()
    content = Path("run/last.pt").read_bytes()
    assert command.main(words) == 0  # it has ended, and nothing is left to do
    assert '"AP"' in capsys.readouterr().out
    assert Path("run/last.pt").read_bytes() == content
    with pytest.raises(SystemExit):
        command.main([*words, "--resume"])


def test_processes_that_go_on_draw_other_numbers(toml):
    """Where another number of them left the run; otherwise each of them would drop out the same."""
    train(read_config(toml, ["train.epochs=1", "train.evaluate_every=0"]))
    drawn = []
    for rank in range(2):
        left = torch.load("run/last.pt", weights_only=True)
        left["training"]["random"] *= 2
        torch.save(left, "run/last.pt")
        run = Run(read_config(toml), Process(CPU), resume=True)
        run.process = Process(CPU, rank)
        run._restore(Checkpoint.load("run/last.pt"))
        drawn.append(torch.rand(1).item())
    assert drawn[0] != drawn[1]


def test_an_evaluation_that_is_repeated_has_one_row(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2):
        log.losses(step, {"loss": 0.5})
        log.metrics(step, {"AP": 1.0})
    RunLog(tmp_path, 2, remeasure=True).metrics(2, {"AP": 3.0})
    assert (tmp_path / METRICS).read_text().split() == ["step,AP", "1,1.0", "2,3.0"]
    assert (tmp_path / LOSSES).read_text().split() == ["step,loss", "1,0.5", "2,0.5"]


def test_a_run_killed_after_it_evaluated(toml, monkeypatch):
    original = Checkpoint.save

    def save(self, path):
        if Path(path).name == LAST and self.metrics:
            raise TrainingError("killed")
        original(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save)
        with pytest.raises(TrainingError, match="killed"):
            train(read_config(toml))
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 2
    train(read_config(toml), resume="auto")
    assert [line.split(",")[0] for line in Path("run/metrics.csv").read_text().splitlines()] == ["step", "2", "4"]


class TestFolders:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(saved_state, "SETTLING_S", 0)
        monkeypatch.setattr(saved_state, "LOOK_EVERY_S", 0)

    @pytest.fixture
    def others(self, monkeypatch):
        """What another process says: the name of the first one's file, and what it gathers beside ours."""
        said: dict[str, object] = {"name": None, "gathered": []}
        monkeypatch.setattr(saved_state, "from_main", lambda value, process: value or said["name"])
        monkeypatch.setattr(saved_state, "gather", lambda value, process: [value, *said["gathered"]])
        return said

    def test_a_folder_of_its_own(self, tmp_path, others):
        (tmp_path / "run").mkdir()
        others["name"] = "a file of the first process"
        with pytest.raises(InputError, match=r"run is another folder on .* Expected storage that all nodes share"):
            find_state(tmp_path / "run", "auto", SECOND)
        with pytest.raises(InputError, match="is another folder on"):
            find_state(tmp_path / "none", True, SECOND)

    def test_another_node_does_not_see_ours(self, tmp_path, others):
        (tmp_path / "run").mkdir()
        others["gathered"] = ["node-b"]
        with pytest.raises(InputError, match="run is another folder on node-b than on the node of the first process"):
            find_state(tmp_path / "run", "auto", FIRST)
        assert list((tmp_path / "run").iterdir()) == []

    def test_a_state_that_another_run_keeps_writing(self, toml, others, monkeypatch):
        train(read_config(toml, ["train.epochs=1", "train.evaluate_every=0"]))
        monkeypatch.setattr(saved_state, "check_shared", lambda folder, process: None)
        others["gathered"] = ["no state"]
        with pytest.raises(CheckpointError, match=r"run/last\.pt keeps changing, the processes read .*no state"):
            find_state(Path("run"), "auto", FIRST)

    @pytest.mark.parametrize("resume", [False, "auto"])
    def test_another_run_in_the_folder(self, tmp_path, resume):
        with alone_in(tmp_path / "run", False, Process(CPU)):
            with alone_in(tmp_path / "run", resume, SECOND):  # only the first writes
                pass
            with pytest.raises(InputError, match="another run writes into"), alone_in(tmp_path / "run", resume, FIRST):
                pass
        with alone_in(tmp_path / "run", resume, FIRST):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_is_about_to_end_is_waited_for(self, tmp_path, monkeypatch):
        monkeypatch.setattr(saved_state, "SETTLING_S", 60)
        with ExitStack() as other, monkeypatch.context() as patch:
            other.enter_context(alone_in(tmp_path, False, Process(CPU)))
            patch.setattr(saved_state, "time", SimpleNamespace(monotonic=lambda: 0, sleep=lambda s: other.close()))
            with alone_in(tmp_path, "auto", Process(CPU)):
                pass

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="cannot be written"), alone_in(tmp_path / "file" / "run", False, FIRST):
            pass


def test_a_run_that_is_there_names_both_ways(toml):
    train(read_config(toml, ["train.epochs=1", "train.evaluate_every=0"]))
    with pytest.raises(InputError, match=r"--resume, or by --auto-resume"):
        train(read_config(toml))


def test_what_all_processes_find_out_is_said_by_the_first(caplog):
    for process in (FIRST, SECOND):
        with said_once(process):
            logging.getLogger("train").warning("the data lack a class, says %d", process.rank)
        logging.getLogger("train").warning("after it, %d", process.rank)
    assert [record.args[0] for record in caplog.records] == [0, 0, 1]


def test_one_gpu_for_several_processes(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"device 'cuda:0' is one for 2 processes"), joined("cuda:0"):
        pass


def test_processes_that_are_not_there(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    message = r"the 2 processes of this run did not find each other at 127\.0\.0\.1:9 \(.+\)\. Expected all of them"
    with pytest.raises(ProcessesError, match=message), joined("cpu", timeout_s=1):
        pass


def test_what_pytorch_says_becomes_a_sentence():
    reset = (
        "[/src/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:6018: Connection reset by peer. This is typical"
    )
    message = r"^gone \(Read error \[127\.0\.0\.1\]:6018: Connection reset by peer\)\. Go on$"
    with pytest.raises(ProcessesError, match=message), _explained("gone", "Go on"):
        raise RuntimeError(reset)
    with pytest.raises(RuntimeError, match="CUDA out of memory"), _explained("gone", "Go on"):
        raise RuntimeError("CUDA out of memory")
