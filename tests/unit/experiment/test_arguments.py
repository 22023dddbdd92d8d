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
        *["--device", "cpu", "--seed=3", "--debug", "--num_codebooks", "4"],
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
    assert (run_opts.device, run_opts.debug) == ("cpu", True)
    assert run_opts.compile_module_keys == ["a", "b"]
    assert run_opts.param_file == "muq.yaml"
    assert run_opts.overridden_args == {
        "device",
        "debug",
        "compile_module_keys",
        "ckpt_interval_steps",
    }


def test_the_file_may_come_last():
    command = parse_arguments(["--seed", "3", "--debug", "muq.yaml"])
    assert command.path == "muq.yaml"
    assert command.run_opts.debug


def test_a_value_that_is_the_name_of_a_run_option_overrides_nothing():
    assert parse("--note=--debug").run_opts.overridden_args == set()


def test_abbreviations_stay_overrides():
    command = parse("--test", "3", "--precis", "bf16")
    assert command.overrides == {"test": 3, "precis": "bf16"}
    assert command.run_opts.test_only is False


def test_training_settings_are_also_overrides_with_their_type():
    command = parse("--max_grad_norm", "1", "--skip_nonfinite_grads", "--debug")
    assert command.overrides == {"max_grad_norm": 1.0, "skip_nonfinite_grads": True}


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
        (["--debug=True"], "--debug is a switch"),
        (["--debug", "True"], "Cannot place 'True'"),
        (["--precision", "fp64"], r"Run options: argument --precision.*'fp64'"),
        (["--debug_batches", "two"], r"argument --debug_batches.*'two'"),
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
    del actions["help"], actions["param_file"]
    assert set(actions) == COMMAND_LINE_OPTIONS
    assert {name for name, a in actions.items() if a.nargs == 0} == FLAG_OPTIONS
    assert {name for name, a in actions.items() if a.nargs == "*"} == LIST_OPTIONS
    assert TRAINING_SETTINGS <= COMMAND_LINE_OPTIONS <= RUN_OPTIONS
