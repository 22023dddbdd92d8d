"""Experiments that train one model after another."""

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment import each_model, load_experiment

PLAN = """
output_folder: out
teacher: null
iterations: 2
overrides: {}
first: {experiment: first.yaml, overrides: {width: 1}}
iteration: {experiment: model.yaml, overrides: {parts.from: !ref <teacher>}}
"""


@pytest.fixture
def plan(tmp_path):
    """Loads a plan with a command line."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "first.yaml").write_text("width: 4\noutput_folder: ''\n")
    (tmp_path / "model.yaml").write_text(
        "width: 4\noutput_folder: ''\nparts: {from: null}\n"
    )
    extending = "extends: plan.yaml\noverrides: {width: 8}\n"
    (tmp_path / "wide.yaml").write_text(extending)

    def load(*options, name="plan"):
        return load_experiment([str(tmp_path / f"{name}.yaml"), *options])

    return load


def models(experiment):
    return [model.hparams for model in each_model(experiment)]


def test_each_model_gets_the_one_before_as_its_teacher(plan):
    assert models(plan()) == [
        {"width": 1, "output_folder": "out/iteration-0"},
        {
            "width": 4,
            "output_folder": "out/iteration-1",
            "parts": {"from": "out/iteration-0"},
        },
        {
            "width": 4,
            "output_folder": "out/iteration-2",
            "parts": {"from": "out/iteration-1"},
        },
    ]


def test_a_given_teacher_takes_the_place_of_the_first_model(plan):
    found = models(plan("--teacher", "runs/a b", "--iterations", "1"))
    assert [model["parts"]["from"] for model in found] == ["runs/a b"]
    assert found[0]["output_folder"] == "out/iteration-1"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("broken: [", r"model\.yaml"),
        ("width: 4\noutput_folder: ''\nparts: {}\n", r"model\.yaml.*parts\.from"),
        (
            "output_folder: ''\nparts: {from: null}\na: !new:torch.nn.Linaer\n",
            r"model\.yaml: a: there is no class",
        ),
        (None, r"model\.yaml"),
    ],
)
def test_what_is_wrong_with_a_later_model_is_found_at_once(
    plan, tmp_path, model, message
):
    path = tmp_path / "model.yaml"
    path.unlink() if model is None else path.write_text(model)
    with pytest.raises(UserError, match=message):
        each_model(plan())


def test_a_model_is_not_built_before_its_turn(plan, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(path.read_text() + "a: !new:torch.nn.Linear [one, two]\n")
    stream = each_model(plan())
    assert next(stream).hparams["width"] == 1
    with pytest.raises(TypeError):
        next(stream)


def test_overrides_of_all_models_in_a_file_and_on_the_command_line(plan):
    given = ["--iterations", "1"]
    assert [m["width"] for m in models(plan(*given, name="wide"))] == [1, 8]
    options = [*given, "--overrides.width", "16"]
    assert [m["width"] for m in models(plan(*options, name="wide"))] == [1, 16]


def test_an_override_that_a_model_does_not_know(plan):
    with pytest.raises(UserError, match="--widht .* nearest known key is 'width'"):
        models(plan("--overrides.widht", "16"))


def test_training_settings_of_the_command_line_hold_for_all(plan):
    found = models(plan("--optimizer_step_limit", "7"))
    assert [model["optimizer_step_limit"] for model in found] == [7, 7, 7]


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "null"])
def test_the_number_of_iterations_is_checked(plan, number):
    with pytest.raises(
        UserError, match=f"iterations is {number.replace('null', 'None')}"
    ):
        models(plan("--iterations", number))
