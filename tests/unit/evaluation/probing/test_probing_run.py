"""Probing from features to the report: every row, restarts, and the report alone."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from muq_plugins.evaluation.probing import run as module
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.features import (
    Features,
    FeatureSettings,
    extractors_of,
    untrained_like,
)
from muq_plugins.evaluation.probing.page import (
    PROBE,
    probing_headline,
    probing_report,
)
from muq_plugins.evaluation.probing.readers import ReaderSettings, fit_layers
from muq_plugins.evaluation.probing.results import (
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    load_results,
    save_results,
)
from muq_plugins.evaluation.probing.run import (
    probe,
    probe_folder,
    probe_task,
    probe_tasks,
)
from muq_plugins.evaluation.probing.tasks import ProbeTask, task_data
from muq_plugins.lobes import MuQEncoder
from tests.unit.evaluation.probed import write_tones

SETTINGS = ReaderSettings(hidden_size=8, lr=0.1, mixture_lr=0.3, max_epochs=20, folds=2)
SEEDS = [0, 1]
TASKS = [
    ProbeTask("timbre", group="piece", level="acoustic"),
    ProbeTask("form", group="piece", level="semantic"),
    ProbeTask("tags", "multi", group="piece", level="acoustic"),
]


@pytest.fixture(scope="module")
def corpus():
    """Clips whose timbre is in layer 1 and whose form is in layer 3."""
    rng = np.random.default_rng(0)
    clips, trained = [], rng.normal(size=(120, 4, 5))
    for index in range(120):
        timbre, form = index % 3, rng.integers(2)
        labels = {
            "timbre": ["bow", "pipe", "string"][timbre],
            "form": ["rondo", "fugue"][form],
            "tags": [name for name, on in (("low", timbre), ("old", form)) if on],
            "piece": f"piece {index // 3}",
        }
        part = ["train", "train", "train", "valid", "test"][index // 3 % 5]
        clips.append(Clip(str(index), "", 1.0, part, labels))
        trained[index, 1, timbre] += 4
        trained[index, 3, form] += 4
    features = {
        LOG_MEL: [Features(rng.normal(size=(120, 1, 7)), "a")],
        UNTRAINED: [Features(rng.normal(size=(120, 4, 5)), name) for name in "bd"],
        TRAINED: [Features(trained, "c")],
    }
    return clips, features


@pytest.fixture(scope="module")
def probed(corpus, tmp_path_factory):
    """The folder and the results of a probe."""
    folder = tmp_path_factory.mktemp("probe")
    results = probe_tasks(TASKS, *corpus, SETTINGS, SEEDS, kept=folder / "kept")
    save_results(folder, results)
    return folder, results


def test_there_is_a_row_for_everything(probed):
    _, results = probed
    for result in results:
        rows = {(row.features, row.reader, row.layer) for row in result.rows}
        layers = [0, 1, 2, 3, "mixture"]
        assert rows == {
            (features, reader, layer)
            for reader in ("linear", "hidden layer")
            for features, there in (
                (LOG_MEL, [None]),
                (UNTRAINED, layers),
                (TRAINED, layers),
            )
            for layer in there
        }
        assert sum(row.chosen for row in result.rows) == 6
        assert all(row.low <= row.value <= row.high for row in result.rows)


def test_a_task_that_stops_all_can_be_removed(tmp_path):
    clips = [Clip(str(at), "", 1.0, None, {"mood": "calm"}) for at in range(4)]
    about = [clips], [ProbeTask("mood")], FeatureSettings(None), SETTINGS, SEEDS
    words = r"A probe needs two\. Or remove the task 'mood' from `tasks`\.$"
    with pytest.raises(ProbeError, match=words):
        probe(tmp_path, {}, *about)
    assert not list(tmp_path.iterdir())


def test_layers_are_told_apart(probed):
    _, (timbre, form, tags) = probed
    for reader in ("linear", "hidden layer"):
        assert timbre.row(TRAINED, reader).layer == 1
        assert form.row(TRAINED, reader).layer == 3
        for result, layer in ((timbre, 1), (form, 3)):
            assert result.row(TRAINED, reader).value > 0.9
            weights = result.row(TRAINED, reader, "mixture").weights
            assert int(np.argmax(weights)) == layer
            assert result.row(UNTRAINED, reader).value < 0.7
    # One tag lies in either layer: only the mixture has both.
    mixture = tags.row(TRAINED, "hidden layer", "mixture")
    assert mixture.value > max(r.value for r in tags.curve(TRAINED, "hidden layer"))
    assert timbre.chance == pytest.approx(1 / 3)
    assert timbre.best_layers[1] > 0.9 and form.best_layers[3] > 0.9


def test_an_untrained_row_is_the_mean_over_initialisations(probed, corpus):
    clips, features = corpus
    alone = [
        probe_tasks(TASKS[:1], clips, {UNTRAINED: [one]}, SETTINGS, SEEDS)
        for one in features[UNTRAINED]
    ]
    for together, *separate in zip(probed[1][:1], *alone, strict=True):
        for reader in ("linear", "hidden layer"):
            rows = together.curve(UNTRAINED, reader)
            for row, *each in zip(
                rows, *(one.curve(UNTRAINED, reader) for one in separate), strict=True
            ):
                assert row.initialisations == [one.value for one in each]
                assert row.value == pytest.approx(np.mean(row.initialisations))
                assert len(set(row.initialisations)) == 2 and each[0].weights is None
                drawn = [one.draws(r) for one, r in zip(separate, each, strict=True)]
                np.testing.assert_allclose(together.draws(row), np.mean(drawn, axis=0))
    assert probed[1][0].row(TRAINED, "linear").initialisations is None


def test_scores_equal_those_of_scikit_learn_on_the_stored_predictions(probed):
    folder, results = probed
    for result, score in (
        (results[0], balanced_accuracy_score),
        (results[2], average_precision_score),
    ):
        with np.load(folder / "tasks" / f"{result.label}.npz") as stored:
            for row in result.rows:
                scores = stored[f"{row.features}/{row.reader}/{row.layer}"]
                each = [score(stored["targets"], one) for one in scores]
                assert row.value == pytest.approx(np.mean(each), abs=1e-9)


def test_what_was_read_is_not_read_again(corpus, probed, monkeypatch):
    folder, results = probed
    read = []
    original = module.Reading._read
    monkeypatch.setattr(
        module.Reading, "_read", lambda self: read.append(self) or original(self)
    )
    next((folder / "kept").iterdir()).unlink()
    again = probe_tasks(TASKS, *corpus, SETTINGS, SEEDS, kept=folder / "kept")
    assert again == results and len(read) == 1


@pytest.mark.parametrize("change", ["features", "labels", "seeds", "reader"])
def test_what_a_reading_depends_on_makes_it_read_again(corpus, change, tmp_path):
    clips, features = corpus
    features = {LOG_MEL: features[LOG_MEL]}
    settings, seeds = ReaderSettings(["linear"]), [0]
    probe_tasks(TASKS[:1], clips, features, settings, seeds, kept=tmp_path)
    (kept,) = tmp_path.iterdir()
    if change == "features":
        features = {LOG_MEL: [Features(features[LOG_MEL][0].values, "new")]}
    elif change == "labels":
        first = Clip("0", "", 1.0, "train", {**clips[0].labels, "timbre": "pipe"})
        clips = [first, *clips[1:]]
    elif change == "seeds":
        seeds = [5]
    else:
        settings = ReaderSettings(["linear"], folds=3)
    probe_tasks(TASKS[:1], clips, features, settings, seeds, kept=tmp_path)
    assert len(set(tmp_path.iterdir()) - {kept}) == 1


def test_the_report_is_made_from_the_folder_alone(probed, pixels):
    folder, results = probed
    assert load_results(folder) == results
    page = probing_report(folder, "an encoder").read_text("utf-8")
    text = (folder / "report.md").read_text("utf-8")
    assert page.count("<img") == 3
    for words in ("an encoder", "Layer by layer: linear probe", "All scores: form"):
        assert words in text
    assert "timbre: training has improved the encoder" in text
    assert "semantic labels high: supported" in text
    assert "timbre" in probing_headline(results)[0].lower()


def test_an_encoder_that_has_learned_nothing_is_told_so(corpus, tmp_path):
    clips, features = corpus
    features = {**features, TRAINED: features[LOG_MEL], LOG_MEL: features[TRAINED]}
    features[LOG_MEL] = [Features(features[LOG_MEL][0].values[:, [1]], "d")]
    results = probe_tasks(TASKS[:1], clips, features, SETTINGS, [0])
    save_results(tmp_path, results)
    words = " ".join(str(verdict) for verdict in PROBE.verdicts_of(results))
    assert "good" not in words
    assert "log-mel statistics know more than the encoder" in words
    probing_report(tmp_path)  # without layers there is no mixture to draw


@pytest.mark.parametrize(
    ("label", "seeds", "message"),
    [
        ("x", [0], "one class only"),
        ("x", [], "seeds must list"),
        ("y", [0], r"No clip has the label 'y'\. There are: x\."),
    ],
)
def test_mistakes_show_before_anything_is_computed(label, seeds, message):
    clips = [Clip(str(i), "nowhere", 1.0, None, {"x": "a"}) for i in range(9)]
    with pytest.raises(ProbeError, match=message):
        probe("", {}, [clips], [ProbeTask(label)], None, SETTINGS, seeds)


def tones(folder, label):
    """Tones of two kinds, as the clips of a corpus."""
    folder.mkdir()
    return [
        Clip(name, entry["wav"], entry["duration"], None, {label: entry["family"]})
        for name, entry in write_tones(folder, 20).items()
    ]


def test_each_label_is_probed_where_it_is_known(tmp_path, monkeypatch):
    """Two corpora: tasks in their order, references read once for two encoders."""
    corpora = [tones(tmp_path / name, name) for name in ("key", "pitch")]
    tasks = [ProbeTask("pitch"), ProbeTask("key")]
    settings = ReaderSettings(readers=["linear"], mixture=False, folds=2)
    features = FeatureSettings(tmp_path / "features")
    fits = []

    def count(*args, **kwargs):
        fits.append(args[0].shape[1])
        return fit_layers(*args, **kwargs)

    monkeypatch.setattr(module, "fit_layers", count)
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoder = MuQEncoder(16, 1, 2, ffn_width=16, conv_channels=2)
        untrained = untrained_like(encoder, [7, 8], corpora[0], features)
        extractors = extractors_of(encoder, untrained)
        folder = tmp_path / f"probe{seed}"
        results = probe(folder, extractors, corpora, tasks, features, settings, [0])
        assert [result.label for result in results] == ["pitch", "key"]
        assert load_results(folder) == results
        assert {row.reader for row in results[0].rows} == {"linear"}
        assert results[0].row(LOG_MEL, "linear").value == 1.0
    # Of both encoders two layers, of references once: log-mel statistics have one.
    assert sorted(fits) == 2 * [1] + (4 + 2 * 2) * [2]

    page = probing_report(folder).read_text("utf-8")
    assert page.count("<img") == 1 and "with a hidden layer" not in page

    fits.clear()
    for _ in range(2):  # other folds, once
        given = corpora[1:], tasks[:1], features, settings, [1]
        probe(folder, extractors, *given)
        assert sorted(fits) == [1, 2, 2, 2]


def test_linear_rows_are_those_of_the_linear_probe(corpus):
    clips, features = corpus
    data = task_data(TASKS[0], clips)
    values = features[TRAINED][0].values
    for folds in (2, 5):
        settings = ReaderSettings(readers=["linear"], folds=folds)
        result = probe_task(data, {TRAINED: features[TRAINED]}, settings, [3])
        expected = fit_layers(
            values[data.parts["train"]],
            np.array(data.classes)[data.targets["train"]],
            data.groups["train"],
            values[data.parts["test"]],
            seed=3,
            folds=folds,
        )
        rows = result.curve(TRAINED, "linear")
        for row, fit in zip(rows, expected, strict=True):
            assert (row.penalty, row.validation) == (fit.penalty, fit.validation)
        assert result.row(TRAINED, "linear", "mixture") is not None


def test_each_encoder_has_a_folder_of_its_own(tmp_path):
    first, second = tmp_path / "a" / "muq" / "1", tmp_path / "b" / "muq" / "1"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    folders = {probe_folder("results", path) for path in (first, second)}
    assert len(folders) == 2
    assert all(folder.startswith("results/muq-1-") for folder in folders)


def test_there_is_no_report_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="the probe has not finished"):
        probing_report(tmp_path)
