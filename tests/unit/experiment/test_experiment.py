"""Loading, saving and running experiments."""

import signal
import subprocess
import sys

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from muq_plugins.errors import UserError
from muq_plugins.experiment import (
    load_experiment,
    load_hparams,
    load_part,
    load_stage,
    run_script,
    save_experiment,
)
from tests.forks import Fork, checked

BASE = """\
seed: 1
__set_seed: !apply:random.seed [!ref <seed>]
output_folder: !ref results/<seed>
width: 2
max_grad_norm: 10.0
precision: bf16
linear: !new:torch.nn.Linear
  in_features: !ref <width>
  out_features: !ref <width> * 2
span: (1, 2)
count: !new:collections.Counter [!ref <output_folder>]
"""


@pytest.fixture
def path(tmp_path):
    """BASE as a file."""
    path = tmp_path / "muq.yaml"
    path.write_text(BASE)
    return str(path)


def test_hparams_run_opts_and_text(path):
    argv = [path, "--width", "3", "--device=cpu", "--linear.bias", "False"]
    experiment = load_experiment(argv)
    assert experiment.hparams["linear"].in_features == 3
    assert experiment.hparams["linear"].bias is None
    assert experiment.hparams["output_folder"] == "results/1"
    assert "device" not in experiment.hparams
    assert experiment.run_opts.device == "cpu"
    assert experiment.overrides == {"width": 3, "linear.bias": False}
    assert str(experiment.path) == path
    assert "!ref <width> * 2" in experiment.yaml_text


def brain_of(argv):
    """A Brain made as recipes make it."""
    experiment = load_experiment([*argv, "--device", "cpu"])
    return sb.Brain(
        modules={"linear": experiment.hparams["linear"]},
        hparams=experiment.hparams,
        run_opts=experiment.run_opts,
    )


def test_the_brain_takes_training_settings_from_the_file(path):
    brain = brain_of([path])
    assert (brain.max_grad_norm, brain.precision) == (10.0, "bf16")


def test_the_command_line_wins_over_the_file_in_brain_hparams_and_text(path):
    argv = [path, "--max_grad_norm", "1.5", "--optimizer_step_limit=7"]
    brain = brain_of(argv)
    assert brain.max_grad_norm == brain.hparams.max_grad_norm == 1.5
    assert brain.optimizer_step_limit == brain.hparams.optimizer_step_limit == 7
    assert brain.precision == "bf16", "options that were not given stay the file's"
    text = load_experiment(argv).yaml_text
    assert "max_grad_norm: 1.5" in text
    assert "optimizer_step_limit: 7" in text


def test_the_saved_file_alone_gives_the_same_hparams(path, tmp_path):
    argv = [path, "--width", "3", "--precision", "fp32", "--output_folder=a\nb"]
    experiment = load_experiment(argv)
    saved = save_experiment(experiment, tmp_path / "new" / "folder")
    assert saved == tmp_path / "new" / "folder" / "hyperparams.yaml"
    names = {file.name for file in saved.parent.iterdir()}
    assert names == {"hyperparams.yaml", "history.jsonl", "run.lock"}

    again = load_experiment([str(saved)]).hparams
    plain = load_hyperpyyaml(saved.read_text())
    for hparams in (again, plain):
        assert str(hparams.pop("linear")) == str(experiment.hparams["linear"])
        rest = {k: v for k, v in experiment.hparams.items() if k != "linear"}
        assert hparams == rest

    header = saved.read_text().splitlines()[:2]
    assert header[0] == f"# Generated from {path} with the arguments:"
    assert "--width 3 --precision fp32" in header[1]


def test_saving_replaces_the_file_as_a_whole(path, tmp_path, monkeypatch):
    save_experiment(load_experiment([path]), tmp_path)
    before = (tmp_path / "hyperparams.yaml").read_text()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    message = "Cannot write .*hyperparams.yaml.*No space left.*Choose a folder"
    with pytest.raises(UserError, match=message):
        save_experiment(load_experiment([path, "--seed", "2"]), tmp_path)
    assert (tmp_path / "hyperparams.yaml").read_text() == before
    names = {file.name for file in tmp_path.iterdir()} - {"history.jsonl", "run.lock"}
    assert names == {"hyperparams.yaml", "muq.yaml"}


def test_the_saved_file_can_be_read_by_whoever_may_read_new_files(path, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("")
    saved = save_experiment(load_experiment([str(path)]), tmp_path / "results")
    assert saved.stat().st_mode == other.stat().st_mode


def test_saving_where_no_folder_can_be(path, tmp_path):
    with pytest.raises(UserError, match="Cannot write"):
        save_experiment(load_experiment([path]), tmp_path / "muq.yaml" / "x")


def test_scripts_print_mistakes_as_one_message(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", path, "--sede", "3"])
    with pytest.raises(SystemExit) as stop:
        run_script(load_experiment)
    assert stop.value.code == 2
    output = capsys.readouterr().err
    assert output.startswith("error: --sede is neither")
    assert "Traceback" not in output


def test_scripts_show_the_traceback_of_other_errors():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main)


def test_scripts_say_in_one_line_what_a_disk_refuses(monkeypatch, capsys):
    def main(argv):
        raise PermissionError(13, "Permission denied", "/music/manifests")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    words = "error: /music/manifests: Permission denied: change its permissions, or "
    assert capsys.readouterr().err == f"{words}choose another place.\n"


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]
)
def test_scripts_end_with_the_status_of_a_signal(name, code, capsys):
    number = getattr(signal, name, None) or pytest.skip(f"there is no {name} here")
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        run_script(lambda argv: signal.raise_signal(number))
    assert stop.value.code == code
    assert capsys.readouterr().err == "Stopped.\n"
    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals tell nothing here")
def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_script(lambda argv: signal.raise_signal(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_threads_of_a_process_group_cannot_abort_a_finished_run(tmp_path):
    """It ends without the end of the interpreter, but with all that others asked."""
    code = (
        "import atexit, sys, torch, torch.distributed as dist\n"
        "from torch.nn.parallel import DistributedDataParallel\n"
        "from muq_plugins.experiment import run_script\n"
        "class Late:\n"
        "    def __del__(self): print('finalized', flush=True)\n"
        "late = Late()\n"
        "atexit.register(print, 'asked for')\n"
        "def main(argv):\n"
        "    store = dist.FileStore(argv[0], 1)\n"
        "    dist.init_process_group('gloo', store=store, rank=0, world_size=1)\n"
        "    DistributedDataParallel(torch.nn.Linear(2, 2))\n"
        "run_script(main)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "store"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "asked for\n"


def test_the_log_of_a_run_holds_no_steps_of_libraries(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import logging, sys, speechbrain as sb\n"
        "from muq_plugins.experiment import run_script\n"
        "def main(argv):\n"
        "    sb.create_experiment_directory(argv[0])\n"
        "    logging.getLogger('matplotlib.font_manager').debug('FONT')\n"
        "    logging.getLogger('PIL.PngImagePlugin').debug('STREAM')\n"
        "    logging.getLogger('muq_plugins.brains').debug('ours')\n"
        "run_script(main)\n"
    )
    checked(Fork(script, tmp_path / "run").result())
    log = (tmp_path / "run/log.txt").read_text()
    assert "ours" in log
    assert "FONT" not in log and "STREAM" not in log


PARTS = """
plain: 1
encoder: !new:torch.nn.Sequential
  - !new:torch.nn.ReLU
  - !new:torch.nn.Conv1d {in_channels: 4, out_channels: !ref <groups>, kernel_size: 1,
      groups: 3}
groups: 4
copied: !ref <encoder>
nested: {source: !apply:os.listdir [/nonexistent]}
"""


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (range(6), "^encoder.1: in_channels must be divisible by groups$"),
        ([0, 1, 5, 7], "^nested.source: .*No such file or directory: '/nonexistent'$"),
    ],
)
def test_what_cannot_be_built_names_its_key(kept, message):
    text = "\n".join(PARTS.strip().split("\n")[number] for number in kept)
    with pytest.raises(UserError, match=message):
        load_hparams(text)


def test_help_says_what_the_script_does_and_can_be_told(path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "Makes tea.")
    with pytest.raises(SystemExit) as stop:
        load_experiment([path, "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert "\nMakes tea.\n" in output and "width: 2" in output
    assert "--device\n" in output and "--budget tiny|small|full\n" in output


class TestStage:
    """Experiments that another experiment starts."""

    @pytest.fixture
    def whole(self, tmp_path, monkeypatch):
        """An experiment with run options and training settings of its own."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "whole.yaml").write_text("seed: 1\nprecision: fp32\n")
        (tmp_path / "stage.yaml").write_text("seed: 2\nmax_grad_norm: 3.0\nlr: 1\n")
        argv = ["--device=cpu", "--compile", "--max_grad_norm=9", "--precision=bf16"]
        return load_experiment([str(tmp_path / "whole.yaml"), *argv])

    def test_overrides_and_run_options_but_no_training_settings(self, whole):
        stage = {"experiment": "stage.yaml", "overrides": {"seed": 5, "lr": None}}
        stage = load_stage(whole, stage)
        assert stage.hparams == {"seed": 5, "max_grad_norm": 3.0, "lr": None}
        assert stage.path.name == "stage.yaml"
        linear = {"linear": torch.nn.Linear(1, 1)}
        brain = sb.Brain(linear, hparams=stage.hparams, run_opts=stage.run_opts)
        assert (brain.max_grad_norm, brain.precision) == (3.0, "fp32")
        assert brain.compile

    def test_mistakes(self, whole):
        with pytest.raises(UserError, match="nearest known key is 'seed'"):
            load_stage(whole, {"experiment": "stage.yaml", "overrides": {"sede": 5}})
        with pytest.raises(UserError, match="the nearest is stage.yaml"):
            load_stage(whole, {"experiment": "stag.yaml", "overrides": {}})


def test_one_part_of_an_experiment_is_built_with_what_it_refers_to(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "size: 2\nwide: {out: !ref <size> * 2}\nbroken: !new:torch.nn.Linear\n"
        "    in_features: no\n"
        "part: !new:torch.nn.Linear\n    in_features: !ref <size>\n"
        "    out_features: !ref <wide[out]>\n"
    )
    assert load_part(path, "part").weight.shape == (4, 2)
    with pytest.raises(UserError, match="x.yaml has no parts; .* 'part'"):
        load_part(path, "parts")
