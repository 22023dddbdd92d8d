"""The files of a run folder that the report is made from, and how they are written."""

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
    """Save the arrays that the report of a run shows."""
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
    """Load what `save_diagnostics` has saved."""
    path = Path(run_folder) / DIAGNOSTICS_FILE
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
