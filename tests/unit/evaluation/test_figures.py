"""Every figure is drawn, for 1 to 16 codebooks, and leaves no global state."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from muq_plugins.evaluation.figures import style
from muq_plugins.evaluation.figures.experiments import Dots, scores_by_number
from muq_plugins.evaluation.figures.lines import (
    Level,
    Line,
    Panel,
    level_lines,
    line_charts,
    train_line,
    valid_line,
)
from muq_plugins.evaluation.figures.values import (
    Bars,
    bars,
    histograms,
    intervals,
    shares,
    spectrograms,
)

pytestmark = pytest.mark.usefixtures("pixels")


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


@pytest.mark.parametrize(
    ("value", "words"),
    [(-10.0, "-1,000%"), (0.7, "70%"), (0.1 * 3, "30%"), (0.8025, "80.25%")],
)
def test_shares_are_written_out(value, words):
    assert style.percent_tick(value) == words


def texts_of(figure):
    return " ".join(
        text.get_text()
        for axes in figure.axes
        for text in axes.findobj(matplotlib.text.Text)
    )


def assert_is_png(path):
    image = imread(path)
    assert image.std() > 0.01  # something is on it


@pytest.mark.parametrize("last", [4.0, np.nan])
def test_curves_with_references_and_gaps(tmp_path, drawn, last):
    x = np.arange(40)
    noisy = np.where((x > 9) & (x < 20), np.nan, 6 - x / 40)
    panel = Panel(
        "Loss",
        [train_line(x, noisy), valid_line([10, 30], [5.0, last])],
        [Level(5.55, "chance\nln V = 5.55", "black")],
        legend="above",
    )
    line_charts([panel, panel], tmp_path / "loss.png", height=3)
    assert_is_png(tmp_path / "loss.png")
    assert len(drawn[0].axes) == 2 and "ln V = 5.55" in texts_of(drawn[0])
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    np.testing.assert_array_equal(lines["validation"].get_ydata(), [5.0, last])
    mean = lines["training"].get_ydata()
    assert mean[0] == np.mean(noisy[:2]) and np.isnan(mean[14])
    assert ("4.00" in texts_of(drawn[0])) == (last == 4.0)


def test_a_key_names_everything_once(tmp_path, drawn):
    band = [0.1, 0.2], [0.3, 0.4]
    lines = [Line([0, 1], [0.2, 0.3], "trained", "blue", "o", band)]
    lines.append(Line([2], [0.4], "", "blue", "D"))
    levels = [Level(0.1, "chance", "grey", dashes=":")]
    panel = Panel("key", lines, levels, ticks=([0, 1, 2], ["0", "1", "mix"]))
    path = tmp_path / "layers.png"
    line_charts([panel] * 4, path, height=5, columns=3, key=True)
    assert_is_png(path)
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["trained", "chance"]


def test_levels_are_numbered_from_nothing_decoded(tmp_path, drawn):
    lines = level_lines({"songs": [0.8, 0.5, 0.3], "own": [0.8, 0.4, 0.2]})
    line_charts([Panel("Error", lines)], tmp_path / "a.png", height=3)
    front, behind = drawn[0].axes[0].lines
    assert front.get_zorder() > behind.get_zorder()
    assert "0.80" in texts_of(drawn[0]) and "0.40" not in texts_of(drawn[0])


@pytest.mark.parametrize("num_codebooks", [1, 16])
def test_codebook_figures(tmp_path, synthetic, drawn, num_codebooks):
    counts = synthetic["code_counts"](num_codebooks)
    histograms(counts, ["a note"] * num_codebooks, tmp_path / "codes.png")
    assert len(drawn[0].axes) == num_codebooks
    assert "a note" in texts_of(drawn[0])
    values = np.linspace(0.1, 0.9, num_codebooks)
    charts = [
        Bars("Accuracy", "right", values, values / 2, shares=True),
        Bars("Loss", "nats", values, level=(0.5, "chance")),
    ]
    bars(charts, ("the model", "counting"), tmp_path / "bars.png")
    heights = [bar.get_height() for bar in drawn[1].axes[0].patches]
    assert heights == values.tolist()
    for name in ("codes", "bars"):
        assert_is_png(tmp_path / f"{name}.png")


def test_spectrograms(tmp_path, synthetic, drawn):
    mel, reconstructions, _ = synthetic["mel"](seconds=1)
    path = tmp_path / "mel.png"
    spectrograms(mel, {"1 level": reconstructions[0]}, path)
    assert_is_png(path)
    error = np.abs(reconstructions[0] - mel).mean()
    assert f"|error|, mean {error:.2f}" in texts_of(drawn[0])
    images = [axes.images[0] for axes in drawn[0].axes[:3:2]]
    assert images[0].get_clim() == images[1].get_clim()


def test_intervals_and_shares(tmp_path, drawn):
    scores = {"log-mel": (0.4, 0.3, 0.5), "trained": (0.7, 0.6, 0.8)}
    intervals(scores, 0.25, "accuracy", tmp_path / "a.png")
    assert "70.0%" in texts_of(drawn[0]) and "chance" in texts_of(drawn[0])
    shares({"key": [0.2, 0.8]}, ["0", "1"], "layer", tmp_path / "b.png")
    assert "80%" in texts_of(drawn[1])
    for name in "ab":
        assert_is_png(tmp_path / f"{name}.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", [[1, 2, 16], [0, 0.5, 1]])
def test_numbers_of_experiments_have_places_apart(tmp_path, drawn, x):
    dots = [Dots(str(number), [50.0, 51.0], (49.0, 52.0)) for number in x]
    names, differences = ("number", "score", "minus first"), [None, *dots[1:]]
    scores_by_number(x, dots, differences, {}, names, tmp_path / "a.png")
    assert "base" in texts_of(drawn[0])
    axes = drawn[0].axes[0]
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(number, 50) for number in x])
    )[:, 0]
    assert places[0] > 0.05 and places[-1] < 0.95 and np.diff(places).min() > 0.2


def test_global_state_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # forbids the import
    before = {key: matplotlib.rcParams[key] for key in style.STYLE}
    intervals({"a": (0.5, 0.4, 0.6)}, 0.5, "", tmp_path / "a.png")
    assert {key: matplotlib.rcParams[key] for key in style.STYLE} == before
    assert before["axes.titlelocation"] != style.STYLE["axes.titlelocation"]


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), style.new_figure(tmp_path / "a.png", 4, 3):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
