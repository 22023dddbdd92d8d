"""Reports are complete, stand alone, and are made from the run folder only."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from jinja2 import ChoiceLoader, DictLoader

from muq_plugins.evaluation import page
from muq_plugins.evaluation.figures import style
from muq_plugins.evaluation.page import Fact, Table, Verdict, write_page
from muq_plugins.evaluation.pages import headline, report
from muq_plugins.evaluation.probing.run import probe_run
from muq_plugins.evaluation.run_files import (
    MetricsLog,
    load_diagnostics,
    save_diagnostics,
)
from muq_plugins.lobes import MuQEncoder
from tests.unit.evaluation.probed import save_final_probe, write_songs


class Page(HTMLParser):
    """Elements of a page, and whether they are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.titles, self.sources = [], [], [], []
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[k] for k in ("src", "href") if k in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def with_test(rows):
    """Rows of a run that has come to its end."""
    return [*rows, {**rows[-1], "kind": "test"}]


def write_rows(folder, rows):
    log = MetricsLog(folder / "metrics.jsonl")
    log.path.write_text("".join(f"{row}\n" for row in map(json.dumps, rows)), "utf-8")
    return folder


def save_probe(folder):
    rng = np.random.default_rng(0)
    labels = np.array(["Organ", "Piano"] * 20)
    names = ("log-mel statistics", "untrained encoder", "trained encoder")
    features = {
        name: rng.normal(size=(40, 2)) + signal * (labels == "Piano")[:, None]
        for signal, name in zip((0.5, 0.0, 4.0), names, strict=True)
    }
    save_final_probe(folder, features, labels, ["train"] * 20 + ["test"] * 20)


@pytest.fixture
def tokenizer_folder(tmp_path, synthetic):
    folder = write_rows(
        tmp_path / "mel_rvq" / "1", with_test(synthetic["tokenizer_rows"](2))
    )
    mel, reconstructions, levels = synthetic["mel"](seconds=1)
    save_diagnostics(
        folder,
        code_counts=synthetic["code_counts"](2),
        mel=mel,
        reconstructions=reconstructions,
        reconstruction_levels=levels,
    )
    return folder


@pytest.fixture
def pretrain_folder(tmp_path, synthetic):
    folder = write_rows(
        tmp_path / "muq" / "1", with_test(synthetic["pretrain_rows"](2))
    )
    save_diagnostics(folder, code_counts=synthetic["code_counts"](2))
    save_probe(folder)
    (folder / "hyperparams.yaml").write_text("seed: 1 # <&>\n", "utf-8")
    return folder


@pytest.fixture
def page_of(monkeypatch):
    """A page with one section, whose template is given; the subject is a text."""

    def make(template, verdict="", title="Old", table=None, **figures):
        environment = page._templates()
        loader = ChoiceLoader([DictLoader({"it.md.j2": template}), environment.loader])
        monkeypatch.setattr(environment, "loader", loader)
        facts = (lambda it: [Fact(it, it, it)],)
        verdicts = (lambda it: [Verdict("warning", verdict or it)],)
        return page.Page(
            title, "it.md.j2", facts, verdicts, (page.Part("one", figures, table),)
        )

    return make


def test_a_page_escapes_and_stands_alone(tmp_path, page_of):
    def draw(it, path):
        with style.new_figure(path, 3, 2) as figure:
            figure.add_subplot()

    found = page_of(
        '{% block one %}\nOne\n\nFirst.\n\n![An "alt" & more](a)\n*A <caption>*\n\n'
        "Second.\n{% endblock %}",
        verdict="a < b",
        title="A <title>",
        table=lambda it: Table(["a|b"], [["<c>"]]),
        a=draw,
    )
    path = write_page(tmp_path, found, "<1", settings="x: !new:<y>")
    text = path.read_text("utf-8")
    for raw in ("<title>A <", "<caption>", "<1", "<c>", "<y>", "a < b"):
        assert raw not in text
    assert "<p>First.</p>" in text and "<p>Second.</p>" in text
    parsed = Page(path)
    assert parsed.images[0]["alt"] == 'An "alt" & more'
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert not re.search(r"https?://|<script", text)

    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert '![An "alt" & more](figures/a.png)' in markdown
    assert "| a\\|b |\n|---|\n| &lt;c> |\n" in markdown
    assert "- **warning**: a < b\n" in markdown


def test_missing_figure_is_an_error_and_keeps_the_old_report(tmp_path, page_of):
    template = "{% block one %}One\n\n![alt](no)\n*caption*{% endblock %}"
    old = page_of(template.replace("![alt](no)\n*caption*", ""))
    write_page(tmp_path, old, "It")
    new = page_of(template, no=lambda it, path: None)
    with pytest.raises(FileNotFoundError, match=r"no\.png, a figure of the report"):
        write_page(tmp_path, new._replace(title="New"), "It")
    assert "Old" in (tmp_path / "report.html").read_text("utf-8")
    assert not list(tmp_path.glob("*.partial"))


def test_a_pretraining_has_all_parts(pretrain_folder, tokenizer_folder, pixels):
    path = report(pretrain_folder, {"tokenizer": tokenizer_folder})
    parsed, text = Page(path), path.read_text("utf-8")
    assert parsed.titles == [
        "Has it learned from the music?",
        "Which codebooks does it predict?",
        "Does it know what it hears?",
        "Class by class",
        "Are the codes used?",
        "What does each codebook add?",
        "Did the training run smoothly?",
    ]
    assert len(parsed.images) == 7 and all(image["alt"] for image in parsed.images)
    for words in (
        "a counting model: 4.90 nat, chance (ln V): 5.55 nat",
        "muq/1",
        "the model predicts music that it does not hear",
        "tokenizer: every codebook uses",
        "family: training has improved the encoder",
        "seed: 1 # &lt;&amp;&gt;",
    ):
        assert words in text
    markdown = (pretrain_folder / "report.md").read_text("utf-8")
    links = re.findall(r"\]\((.*?)\)", markdown)
    assert len(links) == 7
    assert all((pretrain_folder / link).exists() for link in links)


def test_the_tokenizer_of_another_pretraining(pretrain_folder, tokenizer_folder):
    """Its folder holds the rows of the student that was trained with it."""
    path = report(pretrain_folder, {"tokenizer": tokenizer_folder})
    expected = path.read_bytes()
    other = tokenizer_folder.parent / "other"
    shutil.copytree(tokenizer_folder, other / "tokenizer")
    shutil.copy(pretrain_folder / "metrics.jsonl", other)
    assert report(pretrain_folder, {"tokenizer": other}).read_bytes() == expected


def test_tokenizers_of_several_targets_are_told_apart(
    pretrain_folder, tokenizer_folder, synthetic
):
    """Also where their folders have one name, and whatever a target is called."""
    other = write_rows(
        tokenizer_folder.parents[1] / "other" / "1", synthetic["tokenizer_rows"](4)
    )
    given = {"tokenizer": tokenizer_folder, "tokenizer_a-b/c": other}
    text = report(pretrain_folder, given).with_suffix(".md").read_text("utf-8")
    for name in ("tokenizer", "tokenizer_a-b/c"):
        assert f"What does each codebook add? ({name})" in text
        assert f"{name}: every codebook uses" in text
    links = re.findall(r"\]\((figures/.*error_by_level.png)\)", text)
    assert len(links) == len(set(links)) == 2
    assert all((pretrain_folder / link).is_file() for link in links)


def test_tokenizer_report_is_made_from_the_files_alone(
    tokenizer_folder, tmp_path, pixels
):
    path = report(tokenizer_folder)
    parsed, first = Page(path), path.read_bytes()
    assert "What does each codebook add?" in parsed.titles
    assert len(parsed.images) == 5
    copy = tmp_path / "elsewhere" / "mel_rvq" / "1"
    copy.mkdir(parents=True)
    for name in ("metrics.jsonl", "diagnostics.npz"):
        shutil.copy(tokenizer_folder / name, copy)
    assert report(copy).read_bytes() == first


@pytest.mark.parametrize("make", ["tokenizer", "pretrain"])
def test_report_of_a_run_that_was_stopped_early(tmp_path, synthetic, make):
    rows = synthetic[f"{make}_rows"]()[:3]
    folder = write_rows(tmp_path, rows)
    assert "there is no validation yet" in report(folder).read_text("utf-8")
    assert headline(folder)[0].startswith("training ")


def test_report_after_divergence(tmp_path, synthetic):
    rows = synthetic["pretrain_rows"]()
    for row in rows[-20:]:
        row["non_finite"] = ["cross_entropy"]
        for key in ("cross_entropy", "accuracy", "loss"):
            row[key] = None
        for key in ("cross_entropy_per_codebook", "accuracy_per_codebook"):
            row[key] = [None] * 8
    folder = write_rows(tmp_path, rows)
    text = report(folder).read_text("utf-8")
    assert "not finite at step" in text
    assert headline(folder)[0].startswith("masked cross-entropy not finite")


def test_report_needs_rows_of_a_stage(tmp_path):
    write_rows(tmp_path, [{"kind": "train", "stage": "dance", "step": 1}])
    with pytest.raises(ValueError, match="no rows of a stage to report on, which are"):
        report(tmp_path)


def test_headline(pretrain_folder, tokenizer_folder):
    assert headline(pretrain_folder) == [
        "masked cross-entropy 4.07 nat (test part; a counting model: 4.90 nat, "
        "chance (ln V): 5.55 nat)",
        "masked accuracy 22.7% (test part; always guessing the most frequent code: "
        "12.4%)",
        "code usage 96.9–100% (test part; 2 x 256 codes, perplexity 53–201)",
    ]
    assert headline(tokenizer_folder)[0] == (
        "reconstruction error 0.48 (test part; 0.83 with nothing decoded, 0.63 from "
        "the first codebook alone)"
    )


def test_what_is_heard_is_reported_apart(pretrain_folder):
    rows = [json.loads(x) for x in (pretrain_folder / "metrics.jsonl").open()]
    assert "visible" not in report(pretrain_folder).read_text("utf-8")
    visible = {"visible_cross_entropy": 2.5, "visible_accuracy": 0.25}
    write_rows(pretrain_folder, [*rows[:-1], {**rows[-1], **visible}])
    text = (report(pretrain_folder).parent / "report.md").read_text("utf-8")
    for fact in ("Cross-entropy of visible frames", "2.50 nat", "25.0%"):
        assert fact in text


def test_diagnostics_round_trip(tmp_path):
    save_diagnostics(tmp_path, code_counts=torch.ones(2, 4, dtype=torch.int64))
    loaded = load_diagnostics(tmp_path)
    assert loaded["code_counts"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert load_diagnostics(tmp_path / "empty") == {}


def test_the_music_and_a_random_target_are_named(pretrain_folder):
    rows = [json.loads(x) for x in (pretrain_folder / "metrics.jsonl").open()]
    write_rows(
        pretrain_folder, [*rows[:-1], {**rows[-1], "random_target": "ResidualVQ"}]
    )
    data = {"train": 56, "valid": 3, "test": 2, "hash": "x"}
    history = f"{json.dumps({'data': data})}\n"
    (pretrain_folder / "history.jsonl").write_text(history)
    report(pretrain_folder)
    text = (pretrain_folder / "report.md").read_text("utf-8")
    assert "| Target | **random weights** | nobody has trained the ResidualVQ |" in text
    assert "| Music | **56 files** | to learn from; 3 for validation, 2 for the" in text
    assert "the final numbers rest on 2 files" in text


def test_notes_come_first_where_they_were_probed_for(pretrain_folder, tmp_path):
    train, test = (write_songs(tmp_path, pieces) for pieces in (range(6), range(6, 12)))
    encoder = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    assert probe_run(pretrain_folder, encoder, train, test)
    report(pretrain_folder)
    text = (pretrain_folder / "report.md").read_text("utf-8")
    assert headline(pretrain_folder)[0].startswith("notes AP, trained encoder")
    assert text.index("(figures/frames.png)") < text.index("(figures/loss.png)")
    assert "Class by class" not in text and "mean over 5 initialisations" in text
    table = text[text.index("| Layer | Trained |") :].splitlines()[2:4]
    assert [row[:4] for row in table] == ["| 0 ", "| 1 "]
    assert all(row.count(" to ") == 3 for row in table)


def test_names_are_no_markup(tmp_path, page_of):
    name = "<script>alert(1)</script> [x](javascript:1) &lt; a|b\n\x1b.wav"
    named = page_of(
        "{% block one %}{{ it }}\n\n{{ it }}{% endblock %}",
        title=name,
        table=lambda it: Table([it, "b"], [[it, "1"]]),
    )
    write_page(tmp_path, named, name, settings=f"a: 1\n```\n{name}\n````")
    text = (tmp_path / "report.md").read_text("utf-8")
    words, _, yaml = text.partition("\n`````yaml\n")
    assert not re.search(r"<\w|</", words) and "](" not in words
    assert "\x1b" not in text
    assert words.count("&lt;script>") == 9 and "&amp;lt;" in words
    assert yaml.endswith("`````\n")
