"""Every figure is drawn, for 1 to 16 codebooks, and leaves no global state."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.figures import style


@pytest.fixture
def drawn(monkeypatch):
    """The figures as matplotlib objects, in the order of drawing."""
    made = []

    class Recorded(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(style, "Figure", Recorded)
    monkeypatch.setattr(style, "DPI", 40)
    return made


def texts_of(figure):
    return " ".join(
        text.get_text() for axes in figure.axes for text in axes.findobj(_is_text)
    )


def _is_text(artist):
    return isinstance(artist, matplotlib.text.Text)


def assert_is_png(path):
    image = imread(path)
    assert image.std() > 0.01  # something is on it


def test_pretrain_loss_shows_chance_and_counting(tmp_path, synthetic, drawn):
    rows = synthetic["pretrain_rows"]()
    figures.loss_curves(rows, tmp_path / "loss.png")
    assert_is_png(tmp_path / "loss.png")
    text = texts_of(drawn[0])
    assert "ln V = 5.55" in text and "only counts" in text
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    valid = [row["cross_entropy"] for row in rows if row["kind"] == "valid"]
    np.testing.assert_allclose(lines["validation"].get_ydata(), valid)


def test_tokenizer_loss(tmp_path, synthetic, drawn):
    figures.loss_curves(synthetic["tokenizer_rows"](), tmp_path / "loss.png")
    assert_is_png(tmp_path / "loss.png")
    assert len(drawn[0].axes) == 3


def test_loss_of_two_stages_is_an_error(tmp_path, synthetic):
    rows = synthetic["tokenizer_rows"]() + synthetic["pretrain_rows"]()
    with pytest.raises(ValueError, match="needs the rows of one stage"):
        figures.loss_curves(rows, tmp_path / "loss.png")


def test_loss_with_gaps(tmp_path, synthetic, drawn):
    rows = synthetic["pretrain_rows"]()
    for row in rows[10:40]:
        row["cross_entropy"] = None
    rows[-1]["cross_entropy"] = None
    figures.loss_curves(rows, tmp_path / "loss.png")
    assert_is_png(tmp_path / "loss.png")


def test_optimisation_curves(tmp_path, synthetic, drawn):
    path = tmp_path / "optimisation.png"
    figures.optimisation_curves(synthetic["pretrain_rows"](), path)
    assert_is_png(path)


@pytest.mark.parametrize("num_codebooks", [1, 16])
def test_codebook_figures(tmp_path, synthetic, drawn, num_codebooks):
    counts = synthetic["code_counts"](num_codebooks)
    figures.code_histograms(counts, tmp_path / "codes.png")
    assert len(drawn[0].axes) == num_codebooks
    assert "usage 100%" in texts_of(drawn[0])

    rows = synthetic["pretrain_rows"](num_codebooks)
    figures.accuracy_per_codebook(rows, tmp_path / "accuracy.png", counts)
    heights = [bar.get_height() for bar in drawn[1].axes[0].patches]
    assert heights == rows[-1]["accuracy_per_codebook"]

    rows = synthetic["tokenizer_rows"](num_codebooks)
    figures.error_by_level(rows, tmp_path / "error.png")
    for name in ("codes", "accuracy", "error"):
        assert_is_png(tmp_path / f"{name}.png")


def test_figures_without_validation_are_errors(tmp_path, synthetic):
    rows = [row for row in synthetic["pretrain_rows"]() if row["kind"] == "train"]
    with pytest.raises(ValueError, match="no validation row with accuracy_per_code"):
        figures.accuracy_per_codebook(rows, tmp_path / "accuracy.png")
    with pytest.raises(ValueError, match="no validation row with reconstruction_err"):
        figures.error_by_level(rows, tmp_path / "error.png")


def test_mel_reconstruction(tmp_path, synthetic, drawn):
    mel, reconstructions, _ = synthetic["mel"](seconds=1)
    path = tmp_path / "mel.png"
    figures.mel_reconstruction(mel, {"1 level": reconstructions[0]}, path)
    assert_is_png(path)
    error = np.abs(reconstructions[0] - mel).mean()
    assert f"|error|, mean {error:.2f}" in texts_of(drawn[0])
    images = [axes.images[0] for axes in drawn[0].axes[:3:2]]
    assert images[0].get_clim() == images[1].get_clim()


def test_mel_of_another_shape_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"'1 level' has shape \(9, 4\)"):
        figures.mel_reconstruction(
            np.ones((10, 4)), {"1 level": np.ones((9, 4))}, tmp_path / "mel.png"
        )


def test_no_probe_result_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no probe result"):
        figures.probe_bars([], tmp_path / "probe.png")


def test_global_state_is_left_alone(tmp_path, synthetic, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # forbids the import
    before = {key: matplotlib.rcParams[key] for key in style.STYLE}
    figures.error_by_level(synthetic["tokenizer_rows"](), tmp_path / "a.png")
    assert {key: matplotlib.rcParams[key] for key in style.STYLE} == before
    assert before["axes.titlelocation"] != style.STYLE["axes.titlelocation"]


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), style.new_figure(tmp_path / "a.png", 4, 3):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
