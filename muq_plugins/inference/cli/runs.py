"""``muq-plugins runs``: what ran below a folder, how far it is, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muq_plugins.errors import UserError
from muq_plugins.inference.cli.options import report_problems


def runs(
    folder: Annotated[
        Path, typer.Argument(help="Where runs are, at any depth.")
    ] = Path("results"),
    index: Annotated[
        bool,
        typer.Option(
            "--index",
            help="Also write them as a page with links, report.html in FOLDER.",
        ),
    ] = False,
) -> int:
    """Trainings, probes and studies (not recognition) below a folder, the newest first.

    One line each: its folder, its kind, whether it is finished, and the numbers that
    its report begins with. The exit code is 1 if there are folders that cannot be read.
    """
    from muq_plugins.evaluation.runs import (
        READERS,
        check_no_run,
        find_runs,
        runs_report,
    )

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name the one that holds your runs.")
    if index:
        check_no_run(folder, "--index:")
    found, problems = find_runs(folder)
    if not found and not problems:
        raise UserError(
            f"{folder} has no runs: no folder in it has one of {', '.join(READERS)}."
        )
    for run in found:
        print(run)
    if index:
        print("Page:", runs_report(folder, found))
    return report_problems("Not to be read:", problems)
