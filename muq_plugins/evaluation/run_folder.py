"""The files of a run folder that the report is made from, and how they are written.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import io
from pathlib import Path

import numpy as np

from muq_plugins.data.atomic import replace_file

METRICS_FILE = "metrics.jsonl"
DIAGNOSTICS_FILE = "diagnostics.npz"
PROBE_FILE = "probe.json"
HYPERPARAMETERS_FILE = "hyperparams.yaml"
FIGURES_FOLDER = "figures"

# Name and number of axes of every array that the report knows how to show.
DIAGNOSTIC_AXES = {
    "code_counts": ("N", "V"),
    "mel": ("frames", "mels"),
    "reconstructions": ("K", "frames", "mels"),
    "reconstruction_levels": ("K",),
}


def save_diagnostics(run_folder: str | Path, **arrays) -> Path:
    """Save the arrays that the report of a run shows.

    Arguments
    ---------
    run_folder : str or pathlib.Path
        Folder of the run.
    **arrays : numpy.ndarray or torch.Tensor
        Any of `code_counts` (N, V): how often each code was chosen on unseen clips;
        `mel` (frames, mels): normalised log-mel of one clip; `reconstructions`
        (K, frames, mels): the same clip decoded from `reconstruction_levels` (K,)
        levels.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If an array is unknown, or its shape does not fit.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> _ = save_diagnostics(folder, code_counts=np.ones((8, 256)))
    >>> load_diagnostics(folder)["code_counts"].shape
    (8, 256)
    """
    arrays = {
        name: value.detach().cpu().numpy()
        if hasattr(value, "detach")
        else np.asarray(value)
        for name, value in arrays.items()
    }
    sizes = {}
    for name, array in arrays.items():
        if name not in DIAGNOSTIC_AXES:
            raise ValueError(
                f"unknown diagnostic {name!r}: the report shows "
                f"{', '.join(DIAGNOSTIC_AXES)}"
            )
        axes = DIAGNOSTIC_AXES[name]
        if array.ndim != len(axes):
            raise ValueError(f"{name} must be {axes}, got shape {array.shape}")
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{name} has shape {array.shape} for {axes}, but {axis} is "
                    f"{sizes[axis]} in the other arrays"
                )
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path = Path(run_folder) / DIAGNOSTICS_FILE
    replace_file(path, content.getvalue())
    return path


def load_diagnostics(run_folder: str | Path) -> dict[str, np.ndarray]:
    """Load what `save_diagnostics` has saved.

    Arguments
    ---------
    run_folder : str or pathlib.Path
        Folder of the run.

    Returns
    -------
    dict of numpy.ndarray
        The arrays by name; empty if the run has saved none.

    Example
    -------
    >>> load_diagnostics(getfixture("tmpdir"))
    {}
    """
    path = Path(run_folder) / DIAGNOSTICS_FILE
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
