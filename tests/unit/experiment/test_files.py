"""Extending, including and overriding experiment files."""

import pytest
from hyperpyyaml import load_hyperpyyaml

from muq_plugins.errors import UserError
from muq_plugins.experiment import resolve_experiment
from muq_plugins.experiment.extends import parse_yaml

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


def test_a_file_without_extends_stays_as_it_is(folder):
    assert resolve_experiment(folder / "muq.yaml") == BASE


def test_differences_replace_scalars_and_lists_and_keep_the_rest(child):
    text = child("layers: [7]\nseed: 3\n")
    tree = parse(text)
    assert tree["seed"] == 3
    assert tree["layers"] == [7]
    assert list(tree) == list(parse(BASE)), "the order is the base's"
    assert "# of the model" in text
    assert "!ref <width> * 2" in text
    assert "peak: 5e-4" in text
    assert "extends" not in text


def test_mappings_merge(child):
    tree = parse(child("loader: {sampler: {fraction: 0.9}}"))
    assert tree["loader"] == {
        "batch_size": 4,
        "sampler": {"kind": "random", "fraction": 0.9},
    }


@pytest.mark.parametrize("tag", ["", "!new:torch.nn.Linear"])
def test_arguments_of_the_same_class_merge_and_may_be_new(child, tag):
    text = child(f"encoder: {tag} {{bias: False, out_features: 3}}\ndata_folder: x")
    encoder = load_hyperpyyaml(text)["encoder"]
    assert (encoder.in_features, encoder.out_features) == (8, 3)
    assert encoder.bias is None


def test_the_same_class_without_arguments_changes_nothing(child):
    tree = parse(child("encoder: !new:torch.nn.Linear"))
    assert set(tree["encoder"]) == {"in_features", "out_features"}


def test_another_class_replaces_the_whole_node(child):
    tree = parse(child("encoder: !new:torch.nn.Bilinear {in1_features: 1}"))
    assert dict(tree["encoder"]) == {"in1_features": 1}
    assert tree["encoder"].tag.value == "!new:torch.nn.Bilinear"


def test_another_kind_of_tag_replaces_the_whole_node(child):
    tree = parse(child("encoder: !name:torch.nn.Linear {bias: False}"))
    assert dict(tree["encoder"]) == {"bias": False}


def test_arguments_for_a_callable_that_had_none(child):
    text = child("act: {approximate: tanh}\ndata_folder: x")
    assert load_hyperpyyaml(text)["act"]().approximate == "tanh"


def test_arguments_for_a_callable_with_an_empty_mapping(child):
    text = child("relu: {inplace: True}\ndata_folder: x")
    assert load_hyperpyyaml(text)["relu"].inplace is True


def test_arguments_by_name_do_not_merge_with_arguments_by_position(folder):
    (folder / "list.yaml").write_text("act: !new:torch.nn.Linear [1, 2]\n")
    (folder / "child.yaml").write_text("extends: list.yaml\nact: {bias: False}\n")
    with pytest.raises(UserError, match="'act' takes its arguments by position"):
        resolve_experiment(folder / "child.yaml")


def test_an_empty_mapping_can_be_filled(child):
    assert parse(child("nothing: {a: 1}"))["nothing"] == {"a": 1}


def test_a_mapping_replaces_a_scalar_and_a_scalar_a_mapping(child):
    tree = parse(child("seed: {a: 1}\nloader: null"))
    assert tree["seed"] == {"a": 1}
    assert tree["loader"] is None


def test_references_may_point_to_keys_of_the_base(child):
    text = child("seed: !ref <width> + 1\ndata_folder: x")
    assert load_hyperpyyaml(text)["seed"] == 9


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


def test_a_reference_to_nothing_names_the_nearest_key(child):
    message = r"child.yaml: encoder.in_features.*no <widht>;.*'width'"
    with pytest.raises(UserError, match=message):
        child("encoder: {in_features: !ref <widht>}")


def test_references_into_mappings_and_lists(child):
    with pytest.raises(UserError, match=r"<loader\[batch\]>;.*'loader.b"):
        child("seed: !ref <loader[batch]>")
    with pytest.raises(UserError, match=r"seed: .* no <layers\[0\]>\."):
        child("seed: !ref <layers[0]>")


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
    ("text", "unknown", "known"),
    [
        ("sede: 2", "sede", "seed"),
        ("loader: {batchsize: 2}", "loader.batchsize", "loader.batch_size"),
        ("loader: {sampler: {knd: 2}}", "loader.sampler.knd", "loader.sampler.kind"),
    ],
)
def test_unknown_keys_name_the_file_and_the_nearest_key(child, text, unknown, known):
    message = rf"child.yaml: unknown key '{unknown}'.* is '{known}'"
    with pytest.raises(UserError, match=message):
        child(text)


def test_keys_without_a_use_are_removed(child):
    text = child("width: !remove\ndepth: !remove\nencoder: !new:torch.nn.ReLU\n")
    tree = parse(text)
    assert "width" not in tree and "depth" not in tree and "seed" in tree
    text = "loader:\n  batch_size: !remove\nencoder:\n  in_features: !remove\n"
    tree = parse(child(text))
    assert list(tree["loader"]) == ["sampler"]
    assert list(tree["encoder"]) == ["out_features"]


def test_a_removed_key_is_unknown_from_then_on(child):
    with pytest.raises(UserError, match="--layers is neither a key"):
        child("layers: !remove", {"layers": [1]})
    with pytest.raises(UserError, match="encoder.in_features: .* no <width>"):
        child("width: !remove")


@pytest.mark.parametrize("text", ["sede: !remove", "encoder:\n  bias: !remove"])
def test_only_keys_that_are_there_can_be_removed(child, text):
    with pytest.raises(UserError, match="child.yaml: unknown key"):
        child(text)


def test_a_training_setting_may_be_new_in_an_extending_file(child):
    assert parse(child("max_grad_norm: 10"))["max_grad_norm"] == 10


def test_a_key_that_shadows_a_run_option(child, folder):
    with pytest.raises(UserError, match=r"child.yaml: the key 'device' is a run"):
        child("device: cpu")
    (folder / "other.yaml").write_text("seed: 1\ndebug: True\n")
    with pytest.raises(UserError, match="give --debug on the command line"):
        resolve_experiment(folder / "other.yaml")


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

    def test_unknown_override(self, included):
        (included / "a.yaml").write_text("model: !include:parts/model.yaml {sise: 1}")
        with pytest.raises(UserError, match="model: unknown key 'sise'.*'size'"):
            resolve_experiment(included / "a.yaml")

    def test_in_a_list(self, included):
        (included / "a.yaml").write_text("models: [!include:parts/model.yaml ]\n")
        with pytest.raises(UserError, match="cannot be included in a list"):
            resolve_experiment(included / "a.yaml")

    def test_in_a_circle(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: !include:a.yaml\n")
        with pytest.raises(UserError, match=r"a.yaml -> a.yaml"):
            resolve_experiment(tmp_path / "a.yaml")


class TestOverrides:
    """Values on top of the files."""

    @pytest.fixture
    def override(self, folder):
        """A function that resolves BASE with overrides."""

        def resolve(**overrides):
            dotted = {key.replace("__", "."): v for key, v in overrides.items()}
            return parse(resolve_experiment(folder / "muq.yaml", dotted))

        return resolve

    def test_top_level_and_nested(self, override, tmp_path):
        tree = override(
            seed=5, data_folder=tmp_path, loader__sampler__kind="x", layers=[0, -1]
        )
        assert tree["seed"] == 5
        assert tree["data_folder"] == str(tmp_path)
        assert tree["loader"]["sampler"] == {"kind": "x", "fraction": 0.5}
        assert tree["layers"] == [0, -1]

    def test_mappings_merge(self, override):
        assert override(loader={"batch_size": 9})["loader"]["batch_size"] == 9

    def test_arguments_known_and_new(self, override):
        tree = override(encoder__bias=False, act__approximate="tanh")
        assert tree["encoder"]["bias"] is False
        assert tree["act"] == {"approximate": "tanh"}
        assert tree["act"].tag.value == "!name:torch.nn.GELU"

    def test_mapping_for_a_callable_without_arguments(self, override):
        tree = override(act={"approximate": "tanh"})
        assert tree["act"].tag.value == "!name:torch.nn.GELU"

    def test_texts_are_literal(self, override):
        tree = override(data_folder="5", seed="a: b # c")
        assert tree["data_folder"] == "5"
        assert tree["seed"] == "a: b # c"

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

    def test_values_without_a_yaml_form(self, override):
        with pytest.raises(UserError, match="cannot be written as YAML"):
            override(seed=object())
