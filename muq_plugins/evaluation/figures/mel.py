"""A clip as the tokenizer hears it."""

from pathlib import Path

import numpy as np

from muq_plugins.evaluation.figures.style import new_figure


def mel_reconstruction(
    mel: np.ndarray,
    reconstructions: dict[str, np.ndarray],
    path: str | Path,
    frame_rate: float = 100.0,
) -> None:
    """Draw a log-mel above its reconstructions, with the error beside each."""
    mel = np.asarray(mel, dtype=float)
    for name, decoded in reconstructions.items():
        if np.shape(decoded) != mel.shape:
            raise ValueError(
                f"the reconstruction {name!r} has shape {np.shape(decoded)}, the "
                f"original {mel.shape}"
            )
    decoded = {name: np.asarray(array) for name, array in reconstructions.items()}
    errors = {name: np.abs(array - mel) for name, array in decoded.items()}
    lines = 1 + len(decoded)
    # Percentiles, so that one loud moment does not make the rest dark.
    low, high = np.percentile(mel, [1, 99.5])
    error_high = max(np.percentile(error, 99.5) for error in errors.values())
    extent = (0, len(mel) / frame_rate, 0, mel.shape[1])
    common = {"origin": "lower", "aspect": "auto", "extent": extent}
    with new_figure(path, width=8, height=0.9 + 1.3 * lines) as figure:
        panels = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
        images = {"cmap": "magma", "vmin": low, "vmax": high, **common}
        shown = panels[0, 0].imshow(mel.T, **images)
        panels[0, 0].set_title("Original")
        for line, (name, array) in enumerate(decoded.items(), start=1):
            panels[line, 0].imshow(array.T, **images)
            panels[line, 0].set_title(f"Decoded from {name}")
            wrong = panels[line, 1].imshow(
                errors[name].T, cmap="cividis", vmin=0, vmax=error_high, **common
            )
            panels[line, 1].set_title(f"|error|, mean {errors[name].mean():.2f}")
        for axes in panels.flatten():
            axes.grid(visible=False)
        for axes in panels[:, 0]:
            axes.set_ylabel("mel band")
        for axes in panels[-1]:
            axes.set_xlabel("time in s")
        # The free corner beside the original explains the two colour scales.
        panels[0, 1].axis("off")
        for height, image, name in (
            (0.85, shown, "normalised log-mel"),
            (0.3, wrong, "|error|"),
        ):
            bar = figure.colorbar(
                image,
                cax=panels[0, 1].inset_axes([0.1, height, 0.8, 0.1]),
                orientation="horizontal",
            )
            bar.set_label(name, fontsize=8.5)
            bar.outline.set_visible(False)
