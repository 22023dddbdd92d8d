"""What a tokenizer has learned, as sections of a report."""

from pathlib import Path

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.report import Picture, Section


def tokenizer_loss_section(rows: list[dict], folder: Path) -> Section:
    """The loss terms of the tokenizer over its training."""
    path = folder / "tokenizer_loss.png"
    figures.loss_curves(rows, path)
    return Section(
        "Has it converged?",
        "The reconstruction error is what the codes lose of the features. Commitment "
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
    """What each level of the tokenizer adds."""
    path = folder / "error_by_level.png"
    figures.error_by_level(rows, path)
    pictures = [
        Picture(
            path,
            "Mean absolute error of the features, decoded from the first codebooks "
            "only. With nothing decoded every value counts as zero.",
            "Line chart of the reconstruction error against the number of codebooks.",
        )
    ]
    return _section([*pictures, *_example(diagnostics, folder)])


def decoding_section(
    errors: dict[str, list[float]],
    diagnostics: dict,
    folder: Path,
    frame_rate: float = 100.0,
) -> Section:
    """What each codebook of a finished tokenizer adds, on several kinds of audio."""
    path = folder / "error_by_level.png"
    figures.errors_of_levels(errors, path)
    picture = Picture(
        path,
        "Mean absolute error of the features, decoded from the first codebooks "
        "only. With nothing decoded every value counts as zero.",
        f"Line chart of the reconstruction error against the number of codebooks: "
        f"{', '.join(errors)}.",
    )
    example = _example(diagnostics, folder, frame_rate, "The first clip")
    return _section([picture, *example])


def _example(
    diagnostics: dict, folder: Path, frame_rate=100.0, what="An unseen clip"
) -> list[Picture]:
    """A clip with its reconstructions, if there is one."""
    if "reconstructions" not in diagnostics:
        return []
    path = folder / "mel_reconstruction.png"
    decoded = {
        f"{level} codebook{'s' if level > 1 else ''}": array
        for level, array in zip(
            diagnostics["reconstruction_levels"].tolist(),
            diagnostics["reconstructions"],
            strict=True,
        )
    }
    figures.mel_reconstruction(diagnostics["mel"], decoded, path, frame_rate)
    return [
        Picture(
            path,
            f"{what}, what a few codes keep of it, and what they lose. The "
            "panels of a column share a scale.",
            "Spectrograms: the original clip and its reconstructions from "
            f"{', '.join(decoded)}, each with its error.",
        )
    ]


def _section(pictures: list[Picture]) -> Section:
    return Section(
        "What does each codebook add?",
        "The codes of a frame complete each other: in a residual quantizer, every "
        "codebook is for what the codebooks before it have left over.",
        pictures,
    )
