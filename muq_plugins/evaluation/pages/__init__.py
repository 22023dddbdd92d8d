"""Which stage has which page. Reports are made from the files of a run and no more.

So a report can be made again at any time: after the run, on another machine, or with a
newer version of the figures. A new stage needs its module in `lobes`, a page here, and
one line below.
"""

from collections.abc import Mapping
from pathlib import Path

from muq_plugins.evaluation.page import Page, write_page
from muq_plugins.evaluation.pages.music_text import MUSIC_TEXT
from muq_plugins.evaluation.pages.pretraining import PRETRAINING
from muq_plugins.evaluation.pages.run import Run
from muq_plugins.evaluation.pages.tokenizer import TOKENIZER, inspection_report
from muq_plugins.evaluation.run_files import METRICS_FILE, load_measures, read_metrics
from muq_plugins.lobes import CodePrediction, ContrastiveTraining, TokenizerTraining

__all__ = ["PAGES", "headline", "inspection_report", "read_run", "report"]

# Stage to its page, and to what its numbers meant before runs said so themselves
PAGES = {
    "tokenizer": (TOKENIZER, TokenizerTraining.measures),
    "pretrain": (PRETRAINING, CodePrediction.measures),
    "mulan": (MUSIC_TEXT, ContrastiveTraining.measures),
}


def report(
    run_folder: str | Path, tokenizer_folders: Mapping[str, str | Path] = {}
) -> Path:
    """Write the report of a run of any stage; the HTML file.

    With the folders of the runs that have trained its tokenizers, by the names that the
    page calls them, it shows these too; one that holds a tokenizer without its training
    is left out.

    Example
    -------
    >>> from muq_plugins.evaluation.run_files import MetricsLog
    >>> folder = Path(getfixture("tmpdir"))
    >>> log = MetricsLog(folder / "metrics.jsonl")
    >>> log.write({"kind": "train", "stage": "pretrain", "step": 1, "time": 0.5})
    >>> report(folder).name
    'report.html'
    """
    page, run = read_run(Path(run_folder), tokenizer_folders)
    # The experiment and the seed: the last two folders of its path.
    subtitle = "/".join(run.folder.resolve().parts[-2:])
    return write_page(run_folder, page, run, subtitle)


def headline(run_folder: str | Path) -> list[str]:
    """The lines that matter, for the terminal at the end of a run.

    Three, and one more for each further objective.

    Example
    -------
    >>> from muq_plugins.evaluation.run_files import MetricsLog
    >>> folder = Path(getfixture("tmpdir"))
    >>> row = {"kind": "valid", "stage": "pretrain", "step": 9, "cross_entropy": 4.12}
    >>> row |= {"accuracy": 0.213, "code_entropy": 4.8, "chance": 5.5452, "time": 60}
    >>> MetricsLog(folder / "metrics.jsonl").write(row)
    >>> for line in headline(folder):
    ...     print(line.split(";")[0])
    masked cross-entropy 4.12 nat (validation part
    masked accuracy 21.3% (validation part
    training 9 steps (1 min 0 s)
    """
    page, run = read_run(Path(run_folder))
    return [str(fact) for fact in page.facts_of(run)[: 2 + len(run.objectives)]]


def read_run(
    folder: Path, tokenizers: Mapping[str, str | Path] = {}
) -> tuple[Page, Run]:
    """The run in a folder, and the page of its stage."""
    stages = {row.get("stage") for row in read_metrics(folder / METRICS_FILE)}
    known = [stage for stage in PAGES if stage in stages]
    if not known:
        raise ValueError(
            f"{folder / METRICS_FILE} has no rows of a stage to report on, which are "
            f"{', '.join(PAGES)}"
        )
    page, measures = PAGES[known[-1]]
    earlier = []
    for name, given in tokenizers.items():
        stage = Path(given) / "tokenizer"  # the first of a pre-training
        tokenizer = stage if stage.is_dir() else Path(given)
        if (tokenizer / METRICS_FILE).is_file():
            measured = TokenizerTraining.measures
            earlier.append(Run(tokenizer, "tokenizer", measured, name=name))
    measures = load_measures(folder) or measures
    return page, Run(folder, known[-1], measures, tuple(earlier))
