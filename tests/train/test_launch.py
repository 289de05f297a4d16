"""What the environment says about the processes of a run."""

from __future__ import annotations

import pytest

from gfl_edge.errors import InputError
from train.launch import Launch, read_launch

TWO = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
MEETING = {"MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}


def without(name):
    return {key: value for key, value in {**TWO, **MEETING}.items() if key != name}


def test_alone():
    for environment in ({}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        assert read_launch(environment) == Launch()


def test_among_others():
    assert read_launch({**TWO, **MEETING}) == Launch(3, 4, 1, "node-a:29500")
    assert read_launch({"WORLD_SIZE": "2", "RANK": "1", **MEETING}) == Launch(1, 2, 0, "node-a:29500")
    assert read_launch({**TWO, **MEETING, "SLURM_STEP_NUM_TASKS": "2"}).world_size == 4


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK '1' but no WORLD_SIZE"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK 1 and WORLD_SIZE 1, expected ranks below"),
        ({"WORLD_SIZE": "0"}, "RANK 0 and WORLD_SIZE 0"),
        ({"WORLD_SIZE": "2", "RANK": "two"}, "RANK is 'two', expected a number"),
        ({**TWO, **MEETING, "RANK": "4"}, "RANK 4 and WORLD_SIZE 4"),
        (without("RANK"), "WORLD_SIZE 4 but no RANK"),
        (without("MASTER_ADDR"), "no MASTER_ADDR"),
        ({**without("MASTER_ADDR"), "MASTER_ADDR": ""}, "no MASTER_ADDR"),
        (without("MASTER_PORT"), "no MASTER_PORT"),
        ({**TWO, **MEETING, "MASTER_PORT": "0"}, "MASTER_PORT is 0, expected 1 to 65535"),
        ({**TWO, **MEETING, "MASTER_PORT": "70000"}, "MASTER_PORT is 70000"),
        ({**TWO, **MEETING, "LOCAL_RANK": "2"}, "LOCAL_RANK 2 of 2 on this node, but RANK 3 of 4"),
        ({**TWO, **MEETING, "RANK": "0"}, "LOCAL_RANK 1 of 2 on this node, but RANK 0 of 4"),
        ({**TWO, **MEETING, "LOCAL_WORLD_SIZE": "5"}, "LOCAL_RANK 1 of 5 on this node"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, "srun started '8' of this command .* know nothing of each other.* torchrun"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started '2'"),
    ],
)
def test_what_cannot_be(environment, message):
    with pytest.raises(InputError, match=message) as caught:
        read_launch(environment)
    assert "docs/cluster.md" in str(caught.value)
