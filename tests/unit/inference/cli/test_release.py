"""A run as a folder to give away: half the size, the same model, and a card."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from muq_plugins import MelRVQ, MuQ
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target
from tests.goldens.parts import wav
from tests.unit.tiny_encoders import tiny_encoder

REPORT = """\
# Pre-training

mine/1

![A chart
of loss.](figures/loss.png)

*Loss against
steps.*

## Hyperparameters

```yaml
# seeds
seed: 1
```
"""


@pytest.fixture
def run(tmp_path):
    """What a finished training leaves, as far as it is given away."""
    torch.manual_seed(0)
    save_muq(tmp_path / "run" / "inference", tiny_encoder("MuQEncoder").eval(), "bells")
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    save_tokenizer(tmp_path / "run" / "tokenizer" / "inference", target, "seed: 1\n")
    rows = [{"kind": "test", "step": 1}]
    rows += [
        {
            "kind": "valid",
            "step": 100 * n,
            "loss": 3.6 - n / 5,
            "accuracy": 0.05 + n / 50,
        }
        | {"audio_seconds": 3200 * n}
        for n in (1, 2)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    command = {"step": 0, "command": "train.py hparams/x.yaml"}
    (tmp_path / "run" / "history.jsonl").write_text(f"{json.dumps(command)}\n")
    (tmp_path / "run" / "report.md").write_text(REPORT)
    (tmp_path / "words.md").write_text("# Mine\n\nLicence: none.\n")
    return tmp_path / "run"


def release(run, out):
    return main(["release", str(run), "--card", f"{run}/../words.md", "--out", out])


def test_it_computes_what_the_run_does_at_half_the_size(run, tmp_path):
    out = str(tmp_path / "out")
    assert release(run, out) == 0
    assert release(run, out) == 0  # which replaces it
    first, second = MuQ.from_pretrained(run), MuQ.from_pretrained(out)
    assert second.trained_on == "bells" and second.config == first.config
    for one, other in zip(
        first(wav()[None]).hidden_states, second(wav()[None]).hidden_states, strict=True
    ):
        assert other.dtype == torch.float32
        assert 0 < (other - one).norm() / one.norm() < 2e-3
    codes = [MelRVQ.from_pretrained(folder)(wav()[None]) for folder in (run, out)]
    assert (codes[0] == codes[1]).float().mean() > 0.9
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert all(t.dtype == torch.float16 for t in tensors.values() if t.dim() > 1)
    assert tensors["features.mean"].dtype == torch.float32
    assert (tmp_path / "out" / "metrics.jsonl").read_text().startswith('{"kind"')


def test_the_card_says_what_is_in_it(run, tmp_path):
    assert release(run, str(tmp_path / "out")) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    head, words = card.split("---\n", 2)[1:]
    assert 'library_name: "muq-plugins"\n' in head and "license" not in head
    assert words.startswith("\n# Mine\n\nLicence: none.\n\n| | |\n")
    space = MuQ.from_pretrained(tmp_path / "out").space().name
    for line in ("| trained on | bells |", f"| `{space}` |", "train.py hparams/x.yaml"):
        assert line in words
    assert "| 200 | 1.8 | 3.200 | 0.090 |" in words
    for name in ("model.safetensors", "tokenizer/model.safetensors"):
        content = (tmp_path / "out" / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert f"| `{name}` | {len(content):,} | `{digest}` |\n" in card
    assert card.endswith(
        "\n## Pre-training\n\nmine/1\n\n## Hyperparameters\n\n```yaml\n# seeds\n"
        "seed: 1\n```\n"
    )


def test_a_card_that_was_edited_stays(run, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert release(run, out) == 0
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    before = {path: path.read_bytes() for path in tmp_path.glob("out/*.*")}
    assert release(run, out) == 2
    words = capsys.readouterr().err
    assert f"{card} is not the card that would take its place" in words
    assert "give another --out" in words
    assert {path: path.read_bytes() for path in tmp_path.glob("out/*.*")} == before


def test_mistakes_are_explained(run, tmp_path, capsys):
    (tmp_path / "words.md").write_bytes(b"\xff")
    assert release(run, str(tmp_path / "out")) == 2
    assert "words.md is not text in UTF-8" in capsys.readouterr().err
    given = ["release", str(run), "--card", str(tmp_path / "words.md"), "--out", "x"]
    assert main([*given, "--private"]) == 2
    assert "--private is for --push OWNER/NAME" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.md", "metrics.jsonl", "../words.md"])
def test_what_is_missing_is_named_before_anything_is_written(
    name, run, tmp_path, capsys
):
    (run / name).unlink()
    assert release(run, str(tmp_path / "out")) == 2
    assert f"There is no {run / name}, which goes into" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_tokenizer_of_its_own(run, tmp_path):
    (run / "tokenizer").rename(tmp_path / "elsewhere")
    assert release(run, str(tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "tokenizer").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["encoder"]
