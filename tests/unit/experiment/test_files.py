"""Extending, including and overriding experiment files."""

from pathlib import Path

import pytest
from hyperpyyaml import load_hyperpyyaml

from muq_plugins.errors import UserError
from muq_plugins.experiment import resolve_experiment
from muq_plugins.experiment.extends import parse_yaml
from muq_plugins.experiment.run_folder import values

BASE = """\
# The base experiment
seed: 1
width: 8          # of the model
data_folder: !PLACEHOLDER
encoder: !new:torch.nn.Linear
  in_features: !ref <width>
  out_features: !ref <width> * 2
loader:
  batch_size: 4
  sampler: {kind: random, fraction: 0.5}
layers: [1, 2, 3]
act: !name:torch.nn.GELU
peak: 5e-4
nothing: {}
span: (1, 2)
relu: !new:torch.nn.ReLU {}
depth: !ref <width>
listed: !new:torch.nn.Linear [1, 2]
part: !new:torch.nn.Linear {in_features: 1, out_features: 1}
part_folder: here
long: a plain text of more than eighty letters stays on one line, it is not folded
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with BASE as muq.yaml."""
    (tmp_path / "muq.yaml").write_text(BASE)
    return tmp_path


@pytest.fixture
def child(folder):
    """A function that resolves a file that extends BASE."""

    def resolve(text, overrides=None):
        path = folder / "child.yaml"
        path.write_text("extends: muq.yaml\n" + text)
        return resolve_experiment(path, overrides)

    return resolve


def parse(text):
    """Read merged YAML without building objects."""
    return parse_yaml(text, "merged")


def changes(text):
    """What a merged file says otherwise than BASE, by dotted key; None: it is gone."""
    old, new = values(BASE), values(text)
    keys = [key for key in {**old, **new} if old.get(key, ...) != new.get(key, ...)]
    return {key: new.get(key) for key in keys}


def test_a_file_without_extends_stays_as_it_is(folder):
    assert resolve_experiment(folder / "muq.yaml") == BASE


def test_differences_keep_the_order_and_the_words_of_the_rest(child):
    text = child("layers: [7]\nseed: 3\n")
    assert list(parse(text)) == list(parse(BASE))
    for kept in ("# of the model", "!ref <width> * 2", "peak: 5e-4"):
        assert kept in text
    assert "extends" not in text


NO_ARGUMENTS = {"encoder.in_features": None, "encoder.out_features": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers: [7]\nseed: 3", {"layers": [7], "seed": 3}),
        ("loader: {sampler: {fraction: 0.9}}", {"loader.sampler.fraction": 0.9}),
        # Arguments of the same class merge and may be new; another tag replaces all.
        (
            "encoder: {bias: False, out_features: 3}",
            {"encoder.bias": False, "encoder.out_features": 3},
        ),
        ("encoder: !new:torch.nn.Linear {bias: False}", {"encoder.bias": False}),
        ("encoder: !new:torch.nn.Linear", {}),
        (
            "encoder: !new:torch.nn.Bilinear {in1_features: 1}",
            {
                "encoder": "!new:torch.nn.Bilinear",
                "encoder.in1_features": 1,
                **NO_ARGUMENTS,
            },
        ),
        (
            "encoder: !name:torch.nn.Linear {bias: False}",
            {"encoder": "!name:torch.nn.Linear", "encoder.bias": False, **NO_ARGUMENTS},
        ),
        ("act: {approximate: tanh}", {"act.approximate": "tanh"}),
        ("relu: {inplace: True}", {"relu.inplace": True}),
        ("nothing: {a: 1}", {"nothing.a": 1}),
        ("seed: {a: 1}", {"seed": None, "seed.a": 1}),
        ("nothing: null", {"nothing": None}),
        # Keys without a use are removed, also from mappings and calls.
        (
            "width: !remove\ndepth: !remove\nencoder: !new:torch.nn.ReLU",
            {
                **{"width": None, "depth": None, "encoder": "!new:torch.nn.ReLU"},
                **NO_ARGUMENTS,
            },
        ),
        ("loader: {batch_size: !remove }", {"loader.batch_size": None}),
        ("encoder: {in_features: !remove }", {"encoder.in_features": None}),
        ("max_grad_norm: 10", {"max_grad_norm": 10}),  # a training setting
    ],
)
def test_differences(child, text, expected):
    assert changes(child(text)) == expected


def test_what_was_merged_is_built(child):
    text = child(
        "encoder: {bias: False}\nact: {approximate: tanh}\nrelu: {inplace: True}\n"
        "seed: !ref <width> + 1\ndata_folder: x"
    )
    built = load_hyperpyyaml(text)
    assert built["encoder"].bias is None and built["encoder"].in_features == 8
    assert built["act"]().approximate == "tanh" and built["relu"].inplace
    assert built["seed"] == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !ref <b>\nb: !ref <c>\nc: 3\n", 3),
        ("a: !ref <b>\nb: !ref <c> * 2\nc: !ref <d>\nd: 3\n", 6),
        ("a: !ref <b>/x\nb: !ref <c>\nc: 3\n", "3/x"),
        ("a: !ref <b>/x\nb: !ref <c>/y\nc: 3\n", "3/y/x"),
        ("a: !ref <b> * 3\nb: !ref <c> + 1\nc: 2\n", 9),
        ("a: !ref <b> * <b>\nb: !ref <c> + <d>\nc: 2\nd: !ref <c> - 1\n", 9),
        ("a: !copy <b>\nb: !ref <c>\nc: [1]\n", [1]),
        ("b: 1\na: !ref <b>\n", 1),
    ],
)
def test_any_order_of_references_loads(tmp_path, text, expected):
    (tmp_path / "a.yaml").write_text(text)
    assert load_hyperpyyaml(resolve_experiment(tmp_path / "a.yaml"))["a"] == expected


def test_two_references_to_one_later_object_give_the_same_object(tmp_path):
    text = "a: !ref <b>\nb: !ref <c>\nc: !new:collections.Counter\n"
    (tmp_path / "a.yaml").write_text(text)
    hparams = load_hyperpyyaml(resolve_experiment(tmp_path / "a.yaml"))
    assert hparams["a"] is hparams["c"]


@pytest.mark.parametrize(
    "text",
    [
        "a: !ref <b>\nb: !ref <a>\n",
        "a: !ref <a> + 1\n",
        "a: !ref <b[x]>\nb: !ref <a[x]>\n",
    ],
)
def test_references_in_a_circle(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a.yaml: a: .* go in a circle"):
        resolve_experiment(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: {in_features: !ref <widht>}", r"encoder.in_fea.*no <widht>;.*'widt"),
        ("seed: !ref <loader[batch]>", r"<loader\[batch\]>;.*'loader.b"),
        ("seed: !ref <layers[0]>", r"seed: .* no <layers\[0\]>\."),
        ("sede: 2", "unknown key 'sede'.* is 'seed'"),
        ("loader: {batchsize: 2}", "unknown key 'loader.batchsize'.* 'loader.batch_s"),
        ("loader: {sampler: {knd: 2}}", "'loader.sampler.knd'.* 'loader.sampler.k"),
        ("width: !remove", "encoder.in_features: .* no <width>"),
        ("sede: !remove", "unknown key 'sede'"),
        ("encoder: {bias: !remove }", "unknown key 'encoder.bias'"),
        ("device: cpu", "the key 'device' is a run.* give --device on the command"),
        ("listed: {bias: False}", "'listed' takes its arguments by position"),
        ("loader: x", "'loader' is 'x', .* a section: .* such as 'loader.batch_size'"),
        ("loader: {sampler: [1]}", r"'loader.sampler' is \[1\], .*'loader.sampler.kin"),
        ("encoder: False", "'encoder' is False, .* as 'encoder.in_features'.$"),
        ("part: x", "torch.nn.Linear: change .*; a folder goes to 'part_folder'"),
        ("relu: x", "torch.nn.ReLU: write the whole call again, with its tag !new:"),
        ("act: 3", "'act' is 3, which cannot take the place of torch.nn.GELU"),
        ("listed: [1, 3]", "'listed' is .* with its tag !new:torch.nn.Linear"),
        ("seed: one", "'seed' is 'one', but must be a number, .* \\(1\\)"),
        ("loader: {sampler: {fraction: half}}", "'half', but must be a number"),
    ],
)
def test_faults_of_differences_name_the_file_and_the_nearest_key(child, text, message):
    with pytest.raises(UserError, match=f"child.yaml: .*{message}"):
        child(text)


def test_no_is_no_choice(child):
    """YAML 1.2 reads it as a word, which counts as true."""
    with pytest.raises(UserError, match="bias' is 'no', but must be True or False"):
        child("encoder: {bias: False}", {"encoder.bias": "no"})


def test_a_removed_key_is_unknown_from_then_on(child):
    with pytest.raises(UserError, match="--layers is neither a key"):
        child("layers: !remove", {"layers": [1]})


def test_extends_is_relative_to_the_extending_file_and_recursive(folder):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "one.yaml").write_text("extends: ../muq.yaml\nseed: 2\nwidth: 2")
    (folder / "a" / "b" / "two.yaml").write_text("extends: ../one.yaml\nseed: 3\n")
    tree = parse(resolve_experiment(folder / "a" / "b" / "two.yaml"))
    assert (tree["seed"], tree["width"], tree["layers"]) == (3, 2, [1, 2, 3])


def test_files_that_extend_each_other_show_the_chain(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match=r"a.yaml -> b.yaml -> a.yaml"):
        resolve_experiment(tmp_path / "a.yaml")


def test_missing_files_list_what_is_there(folder):
    (folder / "large.yaml").write_text("a: 1")
    message = r"nope.yaml does not exist; beside it are: large.yaml, muq.yaml"
    with pytest.raises(UserError, match=message):
        resolve_experiment(folder / "nope.yaml")
    with pytest.raises(UserError, match="nor does its folder"):
        resolve_experiment(folder / "nowhere" / "nope.yaml")
    with pytest.raises(UserError, match=r"the nearest is .*/large.yaml$"):
        resolve_experiment(folder / "lage.yaml")
    with pytest.raises(
        UserError, match="nearest that comes along is targets/mert.yaml"
    ):
        resolve_experiment("mrt.yaml")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="its folder has no YAML files"):
        resolve_experiment(folder / "empty" / "nope.yaml")


NO_MAPPING = "a.yaml must be a YAML mapping"
FAULTS = {
    b"extends: [b.yaml, c.yaml]\n": "a.yaml: 'extends' must name one file",
    b"seed: 1\nwidth: 2\nseed: 3\n": 'a.yaml, line 3: the key "seed"',
    b"seed: 1\nlist: [1, 2\nb: 3\n": "(?s)a.yaml is not valid YAML.*line 3",
    b"name: Faur\xe9\n": "a.yaml cannot be read.*utf-8",
    **dict.fromkeys((b"", b"- 1\n- 2\n", b"text", b"!include:b.yaml"), NO_MAPPING),
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults_of_a_file_are_named(tmp_path, text):
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UserError, match=FAULTS[text]):
        resolve_experiment(tmp_path / "a.yaml")


class TestInclude:
    """Files included under a key."""

    @pytest.fixture
    def included(self, folder):
        """Parts of a model in a folder of their own."""
        (folder / "parts").mkdir()
        (folder / "parts" / "model.yaml").write_text(
            "size: 2\n"
            "linear: !new:torch.nn.Linear\n"
            "  in_features: !ref <size>\n"
            "  out_features: !ref <size> * 3\n"
        )
        return folder

    def test_the_text_stands_alone_and_includes_may_be_overridden(self, included):
        (included / "a.yaml").write_text(
            "width: 5\nmodel: !include:parts/model.yaml\n  size: !ref <width>\n"
            "same: !ref <model[linear]>\n"
        )
        text = resolve_experiment(included / "a.yaml", {"width": 4})
        (included / "parts" / "model.yaml").unlink()
        hparams = load_hyperpyyaml(text)
        assert hparams["model"]["linear"].in_features == 4
        assert hparams["model"]["linear"].out_features == 12
        assert hparams["same"] is hparams["model"]["linear"]

    def test_paths_are_relative_to_the_file_they_stand_in(self, included):
        (included / "parts" / "base.yaml").write_text("model: !include:model.yaml\n")
        (included / "a.yaml").write_text("extends: parts/base.yaml\nmodel: {size: 7}")
        text = resolve_experiment(included / "a.yaml")
        assert load_hyperpyyaml(text)["model"]["linear"].in_features == 7

    def test_an_included_file_replaces_a_mapping_of_the_base(self, included):
        (included / "a.yaml").write_text(
            "extends: muq.yaml\nloader: !include:parts/model.yaml\n"
        )
        tree = parse(resolve_experiment(included / "a.yaml"))
        assert set(tree["loader"]) == {"size", "linear"}

    def test_on_the_command_line_relative_to_the_working_folder(
        self, included, monkeypatch
    ):
        monkeypatch.chdir(included / "parts")
        value = parse("!include:model.yaml")
        text = resolve_experiment(included / "muq.yaml", {"loader": value})
        assert parse(text)["loader"]["size"] == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "model: !include:parts/model.yaml {sise: 1}",
                "unknown key 'sise'.*'siz",
            ),
            ("models: [!include:parts/model.yaml ]", "cannot be included in a list"),
            ("a: !include:a.yaml", "a.yaml -> a.yaml"),
        ],
    )
    def test_faults(self, included, text, message):
        (included / "a.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            resolve_experiment(included / "a.yaml")


class TestOverrides:
    """Values on top of the files."""

    @pytest.fixture
    def override(self, folder):
        """A function that resolves BASE with overrides."""

        def resolve(**overrides):
            dotted = {key.replace("__", "."): v for key, v in overrides.items()}
            return resolve_experiment(folder / "muq.yaml", dotted)

        return resolve

    @pytest.mark.parametrize(
        ("overrides", "expected"),
        [
            ({"seed": 5, "layers": [0, -1]}, {"seed": 5, "layers": [0, -1]}),
            ({"loader__sampler__kind": "x"}, {"loader.sampler.kind": "x"}),
            ({"loader": {"batch_size": 9}}, {"loader.batch_size": 9}),
            ({"encoder__bias": False}, {"encoder.bias": False}),
            ({"act__approximate": "tanh"}, {"act.approximate": "tanh"}),
            ({"act": {"approximate": "tanh"}}, {"act.approximate": "tanh"}),
            # Texts are meant literally.
            ({"long": "a: b # c", "width": "5"}, {"long": "a: b # c", "width": "5"}),
            ({"data_folder": Path("music")}, {"data_folder": "music"}),
        ],
    )
    def test_values(self, override, overrides, expected):
        assert changes(override(**overrides)) == expected

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("sede", "--sede is neither .* nearest known key is 'seed'"),
            ("loader__batchsize", "--loader.batchsize .* is 'loader.batch_size'"),
            ("loadr__batch_size", "--loadr.batch_size .* is 'loader'"),
            ("seed__x", "'seed' is not a mapping but 'seed: 1'"),
            ("encoder__in_features__x", "'encoder.in_features' is not a mapping"),
            ("precis", "cannot be abbreviated; did you mean --precision?"),
            ("max", "cannot be abbreviated; did you mean --max_grad_norm?"),
            ("devise", "nearest known key is 'device'"),
        ],
    )
    def test_unknown(self, override, key, message):
        with pytest.raises(UserError, match=message):
            override(**{key: 1})

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("loader.sampler.kind", "'loader.sampler' is null .* no 'kind' to change"),
            ("loader.batch_size", "none.yaml removes 'loader.batch_size' from what"),
            ("layers", "none.yaml removes 'layers' from what it extends"),
            ("encoder.bias.x", "none.yaml removes 'encoder' from what it extends"),
        ],
    )
    def test_what_a_file_has_taken_out(self, folder, key, message):
        text = "layers: !remove\nencoder: !remove\n"
        loader = "loader: {batch_size: !remove , sampler: null}\n"
        (folder / "none.yaml").write_text(f"extends: muq.yaml\n{text}{loader}")
        (folder / "a.yaml").write_text("extends: none.yaml\n")
        with pytest.raises(UserError, match=f"^--{key}.*{message}"):
            resolve_experiment(folder / "a.yaml", {key: 1})

    def test_values_without_a_yaml_form(self, override):
        with pytest.raises(UserError, match="cannot be written as YAML"):
            override(seed=object())
