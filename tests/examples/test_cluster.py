"""The recipes for clusters: linted, checked against Kubernetes' schemas, and run with stand-ins for the cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import config_from_args, parse_args

from train import train as command

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "examples" / "cluster"
SBATCH = FOLDER / "train.sbatch"
JOB = {"JOB_ID": "70001", "JOB_NODELIST": "node-[a-b]", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "8"}
RECORD = '#!/bin/bash\nprintf "%s\\n" "$@" > "$(basename "$0").words"\n'


def tool(name):
    """The path of a tool of the extra dev."""
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed (extra dev)")
    return found


def manifests():
    return list(yaml.safe_load_all((FOLDER / "train.yaml").read_text()))


def script_of_pods():
    (container,) = manifests()[1]["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    return container, script


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A folder at the front of PATH for commands of the cluster; made ones record their words in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PROCESSES_PER_NODE", "2")  # in place of "gpu", of which torchrun finds none here

    def make(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return make


def environment():
    """That of a batch script of Slurm."""
    return {**os.environ, **{f"SLURM_{name}": value for name, value in JOB.items()}}


def launched(words, monkeypatch):
    """What torchrun and train/train.py take their words for."""
    parsed = []
    monkeypatch.setattr(command, "run_command", lambda parser, run, argv: parsed.append(parser.parse_args(argv)) or 0)
    config, _, arguments = config_from_args(parse_args(words))
    command.main([word for word in arguments if word != "-u"][1:])
    return config, parsed[0]


def test_shellcheck_finds_nothing(tmp_path):
    (tmp_path / "pods.sh").write_text(script_of_pods()[1])
    for path in (SBATCH, tmp_path / "pods.sh"):
        words = [tool("shellcheck"), "--shell=bash", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_nothing():
    words = [tool("hadolint"), "--no-color", str(FOLDER / "train.Dockerfile")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_slurm(stand_ins, monkeypatch):
    stand_ins("srun", RECORD)
    stand_ins("scontrol", "#!/bin/bash\nprintf 'node-a\\nnode-b\\n'\n")
    options = ["run.toml", "--set", 'train.output="a run"']
    subprocess.run(["bash", str(SBATCH), *options], env=environment(), check=True)
    words = Path("srun.words").read_text().splitlines()
    start = words.index(".venv/bin/torchrun") + 1
    assert words[: start - 1] == ["--cpus-per-task", "8", "--kill-on-bad-exit=1"]
    config, run = launched(words[start:], monkeypatch)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (2, 2, 2, 3)
    assert (config.rdzv_endpoint, config.run_id) == ("node-a:20001", "70001")
    assert (run.resume, str(run.config), run.overrides) == ("auto", "run.toml", [['train.output="a run"']])


def test_slurm_without_a_configuration(stand_ins):
    done = subprocess.run(["bash", str(SBATCH)], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch ")


def test_slurm_queues_again_when_its_time_is_over(stand_ins):
    stand_ins("srun", "#!/bin/bash\ntouch started\nexec sleep 5\n")
    stand_ins("scontrol", f'{RECORD}[ "$1" = requeue ] || echo node-a\n')
    with subprocess.Popen(["bash", str(SBATCH), "run.toml"], env=environment(), start_new_session=True) as job:
        while not Path("started").exists():
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        job.wait(4)
        os.killpg(job.pid, signal.SIGKILL)
    assert Path("scontrol.words").read_text().split() == ["requeue", "70001"]


@pytest.mark.parametrize("version", ["1.31", "latest"])
def test_kubernetes_takes_the_manifests(version):
    validate = pytest.importorskip("kubernetes_validate", reason="extra dev")
    for manifest in manifests():
        validate.validate(manifest, validate.latest_version() if version == "latest" else version, strict=True)


@pytest.mark.parametrize("index", ["0", "1"])
def test_pods_find_each_other(stand_ins, monkeypatch, index):
    service, job = manifests()
    container, script = script_of_pods()
    stand_ins("torchrun", RECORD)
    of_pod = {**os.environ, "JOB_COMPLETION_INDEX": index, "POD_IP": "10.0.0.7"}
    subprocess.run([*container["command"], script], env=of_pod, check=True)
    config, run = launched(Path("torchrun.words").read_text().splitlines(), monkeypatch)
    assert (config.min_nodes, config.max_nodes) == (1, job["spec"]["parallelism"])
    host, port = config.rdzv_endpoint.split(":")
    assert host == f"{job['metadata']['name']}-0.{job['spec']['template']['spec']['subdomain']}"
    assert int(port) == service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"]
    assert config.rdzv_configs["is_host"] == ("true" if index == "0" else "false")
    assert (config.local_addr, run.resume) == ("10.0.0.7", "auto")
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
