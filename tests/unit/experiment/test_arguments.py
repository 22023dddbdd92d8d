"""Splitting the command line."""

import pytest
from speechbrain.utils.run_opts import RunOptions

from muq_plugins.errors import UserError
from muq_plugins.experiment.command_line import parse_arguments
from muq_plugins.experiment.extends import (
    COMMAND_LINE_OPTIONS,
    FLAG_OPTIONS,
    LIST_OPTIONS,
    RUN_OPTIONS,
    TRAINING_SETTINGS,
    USELESS_OPTIONS,
    resolve_experiment,
)


def parse(*arguments):
    """Parse a command line for muq.yaml."""
    return parse_arguments(["muq.yaml", *arguments])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-5", -5),
        ("1e-4", 1e-4),
        ("-0.5", -0.5),
        ("True", True),
        ("null", None),
        ("~", None),
        ("[1, -2, a]", [1, -2, "a"]),
        ("{a: 1}", {"a": 1}),
        ("a b", "a b"),
        ("/a/b=c", "/a/b=c"),
        ("/music #1", "/music #1"),
        ("#1", "#1"),
        ("'5'", "5"),
        ('"a # b"', "a # b"),
        ("", None),
    ],
)
def test_values_are_yaml(text, value):
    if text:
        assert parse("--x", text).overrides == {"x": value}
        assert parse(f"--x={text}").overrides == {"x": value}
    else:
        with pytest.raises(UserError, match="--x has no value"):
            parse("--x=")


@pytest.mark.parametrize(
    ("text", "tag"), [("!ref <lr> * 2", "!ref"), ("(1, 2)", "!tuple")]
)
def test_tags_survive(text, tag):
    value = parse("--x", text).overrides["x"]
    assert value.tag.value == tag
    assert text.endswith(value.value)


def test_nested_keys_are_dotted():
    assert parse("--a.b", "1", "--a.c=2").overrides == {"a.b": 1, "a.c": 2}


def test_run_options_and_overrides_are_told_apart():
    command = parse(
        *["--device", "cpu", "--seed=3", "--compile", "--num_codebooks", "4"],
        *["--ckpt_interval_steps=-5", "--compile_module_keys", "a", "b", "--lr", "1"],
    )
    assert command.path == "muq.yaml"
    assert command.overrides == {
        "seed": 3,
        "num_codebooks": 4,
        "lr": 1,
        "ckpt_interval_steps": -5,
    }
    run_opts = command.run_opts
    assert (run_opts.device, run_opts.compile) == ("cpu", True)
    assert run_opts.compile_module_keys == ["a", "b"]
    assert run_opts.param_file == "muq.yaml"
    assert run_opts.overridden_args == {
        "device",
        "compile",
        "compile_module_keys",
        "ckpt_interval_steps",
    }


def test_the_file_may_come_last():
    command = parse_arguments(["--seed", "3", "--compile", "muq.yaml"])
    assert command.path == "muq.yaml"
    assert command.run_opts.compile


def test_a_value_that_is_the_name_of_a_run_option_overrides_nothing():
    assert parse("--note=--compile").run_opts.overridden_args == set()


def test_abbreviations_stay_overrides():
    command = parse("--test", "3", "--precis", "bf16")
    assert command.overrides == {"test": 3, "precis": "bf16"}
    assert command.run_opts.compile is False


def test_training_settings_are_also_overrides_with_their_type():
    command = parse("--max_grad_norm", "1", "--skip_nonfinite_grads", "--compile")
    assert command.overrides == {"max_grad_norm": 1.0, "skip_nonfinite_grads": True}


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--debug", "--budget tiny"),
        ("--debug_batches=2", "--budget tiny"),
        ("--test_only", "same command on a finished run"),
        ("--grad_accumulation_factor=4", "clips_per_update"),
        ("--jit", "--compile"),
    ],
)
def test_options_that_would_do_nothing_or_harm_are_refused(option, instead, tmp_path):
    with pytest.raises(UserError, match=f"{option.partition('=')[0]} .*{instead}"):
        parse(option)
    path, key = tmp_path / "a.yaml", option.strip("-").partition("=")[0]
    path.write_text(f"{key}: 1\n")
    with pytest.raises(UserError, match=f"{key} .*{instead}"):
        resolve_experiment(path)


def test_one_interval_of_checkpoints_switches_the_other_off():
    steps, minutes = "ckpt_interval_steps", "ckpt_interval_minutes"
    assert parse(f"--{steps}", "9").overrides == {steps: 9, minutes: 0}
    assert parse(f"--{minutes}", "9").overrides == {steps: 0, minutes: 9}
    both = parse(f"--{minutes}", "0", f"--{steps}", "9").overrides
    assert both == {minutes: 0, steps: 9}


def test_names_stay_what_they_are():
    given = {"data_folder": "2024", "features.folder": "on", "teacher": "007"}
    given |= {"output_folder": "2024-05-01", "labels_csv": "1e5"}
    given |= {"a.data_folder": "/music/Artist: Album", "audio_folder": "[mus]"}
    given |= {"captions_file": "{x}", "source": "a: b", "model": "[x]"}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    assert parse(*options).overrides == given
    assert parse("--tokenizer_folder", "null").overrides == {"tokenizer_folder": None}
    assert parse("--data_folder", "'5'").overrides == {"data_folder": "5"}
    # Such as a study says of a part that has a name of this kind
    assert parse("--encoder", '{"width": 3}').overrides == {"encoder": {"width": 3}}
    assert parse("--data_folder", "!ref <x>").overrides["data_folder"].value == "<x>"


def test_the_optimizer_step_limit_is_a_number():
    assert parse("--optimizer_step_limit", "5").run_opts.optimizer_step_limit == 5
    with pytest.raises(UserError, match="--optimizer_step_limit is 5.5: give a whole"):
        parse("--optimizer_step_limit", "5.5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x"], "--x has no value"),
        (["--x", "--seed", "3"], "--x has no value"),
        (["--device"], "--device has no value"),
        (["--", "3"], "Cannot read '--'"),
        (["--x", "1", "--x=2"], "--x is given twice"),
        (["--compile=True"], "--compile is a switch"),
        (["--compile", "True"], "Cannot place 'True'"),
        (["--precision", "fp64"], r"Run options: argument --precision.*'fp64'"),
        (["--nonfinite_patience", "two"], r"argument --nonfinite_patience.*'two'"),
        (["--x", "[1, 2"], r"(?s)--x=\[1, 2 is not valid YAML.*quotes of its own"),
        (["--x", "{a: 1, a: 2}"], 'the key "a" is there twice'),
    ],
)
def test_mistakes(arguments, message, capsys):
    with pytest.raises(UserError, match=message):
        parse(*arguments)
    assert capsys.readouterr().err == "", "argparse's usage is not shown"


def test_no_file():
    with pytest.raises(UserError, match="experiment file is missing"):
        parse_arguments(["--seed", "3"])


def test_the_lists_of_options_are_those_of_speechbrains_parser():
    actions = {a.dest: a for a in RunOptions._create_parser()._actions}
    for name in ("help", "param_file", *USELESS_OPTIONS):
        del actions[name]
    assert set(actions) == COMMAND_LINE_OPTIONS
    assert {name for name, a in actions.items() if a.nargs == 0} == FLAG_OPTIONS
    assert {name for name, a in actions.items() if a.nargs == "*"} == LIST_OPTIONS
    assert TRAINING_SETTINGS <= COMMAND_LINE_OPTIONS <= RUN_OPTIONS
