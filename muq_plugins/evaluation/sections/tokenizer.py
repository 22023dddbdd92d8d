"""What a tokenizer has learned, as sections of a report.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from pathlib import Path

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.report import Picture, Section


def tokenizer_loss_section(rows: list[dict], folder: Path) -> Section:
    """The loss terms of the tokenizer over its training.

    Arguments
    ---------
    rows : list of dict
        Rows of the tokenizer stage.
    folder : pathlib.Path
        Where the figure goes.

    Returns
    -------
    Section
        Three curves.

    Example
    -------
    >>> row = {"stage": "tokenizer", "kind": "valid", "step": 1}
    >>> section = tokenizer_loss_section([row], Path(getfixture("tmpdir")))
    >>> section.figures[0].path.name
    'tokenizer_loss.png'
    """
    path = folder / "tokenizer_loss.png"
    figures.loss_curves(rows, path)
    return Section(
        "Has it converged?",
        "The reconstruction error is what the codes lose of the log-mel. Commitment "
        "and codebook loss are the distance between projections and their codes, added "
        "up over all codebooks.",
        [
            Picture(
                path,
                "Terms of the loss against training steps. Thin: as logged. Bold: "
                "moving mean.",
                "Line charts of reconstruction error, commitment loss and codebook "
                "loss in training and validation.",
            )
        ],
    )


def levels_section(rows: list[dict], diagnostics: dict, folder: Path) -> Section:
    """What each level of the tokenizer adds.

    Arguments
    ---------
    rows : list of dict
        Rows of the tokenizer stage, with a validation row.
    diagnostics : dict of numpy.ndarray
        Arrays of `load_diagnostics`; the spectrograms are shown if they are there.
    folder : pathlib.Path
        Where the figures go.

    Returns
    -------
    Section
        Error by level, and a clip with its reconstructions.

    Example
    -------
    >>> row = {"kind": "valid", "step": 100}
    >>> row["reconstruction_error_per_level"] = [0.8, 0.5, 0.3]
    >>> len(levels_section([row], {}, Path(getfixture("tmpdir"))).figures)
    1
    """
    path = folder / "error_by_level.png"
    figures.error_by_level(rows, path)
    pictures = [
        Picture(
            path,
            "Mean absolute error of the normalised log-mel, decoded from the first "
            "levels only. With nothing decoded every value is the mean of the log-mel.",
            "Line chart of the reconstruction error against the number of levels.",
        )
    ]
    if "reconstructions" in diagnostics:
        path = folder / "mel_reconstruction.png"
        decoded = {
            f"{level} level{'s' if level > 1 else ''}": array
            for level, array in zip(
                diagnostics["reconstruction_levels"].tolist(),
                diagnostics["reconstructions"],
                strict=True,
            )
        }
        figures.mel_reconstruction(diagnostics["mel"], decoded, path)
        pictures.append(
            Picture(
                path,
                "An unseen clip, what a few levels keep of it, and what they lose. The "
                "panels of a column share a scale.",
                "Spectrograms: the original clip and its reconstructions from "
                f"{', '.join(decoded)}, each with its error.",
            )
        )
    return Section(
        "What does each level add?",
        "The tokenizer describes each frame in steps: every level quantizes what the "
        "levels before it have left over.",
        pictures,
    )
