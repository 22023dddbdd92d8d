"""The log of files that could not be read during training.

A file may go bad after the scan: deleted, overwritten, on a failing disk. It is
replaced by another clip, but never silently: each such file is written down once,
and past a fraction of the corpus the run stops.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from pathlib import Path

from speechbrain.utils.logger import get_logger

from muq_plugins.data.jsonio import append_json_line, open_json_lines, read_json_lines

logger = get_logger(__name__)


class TooManyBadFiles(RuntimeError):
    """More files could not be read than the run accepts.

    Example
    -------
    >>> issubclass(TooManyBadFiles, RuntimeError)
    True
    """


class QuarantineLog:
    """Counts the files that could not be read during training.

    Use it on the main process only, with the failures of all ranks. Entries are
    appended to `<folder>/quarantine.jsonl`, one per file, and read again when a run
    resumes.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder of the run.
    max_bad_fraction : float
        Share of the corpus that may be unreadable, 0..1.

    Raises
    ------
    ValueError
        If the fraction is out of range.

    Example
    -------
    >>> log = QuarantineLog(getfixture("tmpdir"), max_bad_fraction=0.5)
    >>> log.record([("a.flac", "missing"), ("a.flac", "missing")], total_files=10)
    1
    >>> len(log)
    1
    """

    def __init__(self, folder, max_bad_fraction):
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(
                f"max_bad_fraction is a share in 0..1, got {max_bad_fraction}."
            )
        self.path = Path(folder) / "quarantine.jsonl"
        self.max_bad_fraction = max_bad_fraction
        self._reasons = {
            entry["path"]: entry["reason"] for entry in read_json_lines(self.path)
        }

    def __len__(self):
        """Distinct files that could not be read, earlier runs included."""
        return len(self._reasons)

    def record(self, failures, total_files):
        """Notes failures and stops the run when there are too many.

        Arguments
        ---------
        failures : list of (str, str)
            Path and reason, as in `ClipBatch.failures`.
        total_files : int
            Files in the training manifest.

        Returns
        -------
        int
            Files that were not in the log before.

        Raises
        ------
        TooManyBadFiles
            If more than `max_bad_fraction` of all files could not be read.
        """
        new = {}
        for path, reason in failures:
            if path not in self._reasons:
                new.setdefault(path, reason)
        if new:
            self._append(new)
        # Also without new ones: a run that was stopped stops again when it is
        # started again and nothing was repaired.
        if failures and len(self) > self.max_bad_fraction * total_files:
            first = "\n".join(
                f"  {path}: {reason}"
                for path, reason in list(self._reasons.items())[:5]
            )
            raise TooManyBadFiles(
                f"{len(self)} of {total_files} training files could not be read "
                f"({len(self) / total_files:.1%}, max_bad_fraction is "
                f"{self.max_bad_fraction:.1%}). The first ones:\n{first}\n"
                f"All are listed in {self.path}. Repair them or scan the data folder "
                "again, delete that list, and run the same command; or raise "
                "max_bad_fraction."
            )
        return len(new)

    def _append(self, new):
        """Adds entries to the log, in memory and on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_json_lines(self.path) as file:
            for path, reason in new.items():
                append_json_line(file, {"path": path, "reason": reason})
                logger.warning("Quarantined during training: %s (%s)", path, reason)
        self._reasons.update(new)
