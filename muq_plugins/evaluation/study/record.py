"""What a study is made of: experiments, groups, questions, tasks and runs.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Task:
    """A label that was read off the encoders.

    Arguments
    ---------
    name : str
        For example "corpus/family".
    level : str or None
        "acoustic", "semantic" or None.
    chance : float
        What guessing reaches in balanced accuracy.
    classes : list of str
        The classes.
    targets : numpy.ndarray
        Class of every test clip (clips,).
    pieces : numpy.ndarray
        Number of the piece that every test clip is from (clips,).

    Example
    -------
    >>> Task("key", None, 0.5, ["C", "D"], np.array([0, 1]), np.array([0, 0])).pieces
    array([0, 0])
    """

    name: str
    level: str | None
    chance: float
    classes: list[str]
    targets: np.ndarray
    pieces: np.ndarray


@dataclass(frozen=True, eq=False)
class Score:
    """What a probe has read off one kind of features.

    Arguments
    ---------
    layers : list of float
        Balanced accuracy of every hidden state on the test part.
    chosen : int
        Position of the one that validation has chosen.
    hits : numpy.ndarray or None
        Whether each test clip was recognised from it (clips,); None if unknown.

    Example
    -------
    >>> Score([0.2, 0.5], 1, np.array([1, 0])).value
    0.5
    """

    layers: list[float]
    chosen: int
    hits: np.ndarray | None

    @property
    def value(self) -> float:
        """Balanced accuracy of the chosen layer."""
        return self.layers[self.chosen]


@dataclass(frozen=True, eq=False)
class Run:
    """One training: an experiment with one seed.

    Arguments
    ---------
    experiment : str
        Name of the experiment.
    seed : int
        Its seed.
    updates : int
        Optimizer steps.
    audio_seconds : float
        Seconds of audio that were trained on.
    training_seconds : float
        How long it took.
    tokenizer_updates, tokenizer_audio_seconds, tokenizer_seconds : float or None
        The same of the tokenizer; None if none was trained.
    parameters : int or None
        Values in the saved encoder.
    num_codebooks, codebook_size : int
        The target's codes.
    learning_updates : list of int
        Steps at which it was validated.
    learning_cross_entropy : list of float
        Masked cross-entropy there, in nat, mean over codebooks.
    cross_entropy, accuracy, code_entropy : float
        Masked prediction and the codes' own entropy on the test part.
    usage, perplexity : list of float
        Of every codebook, on the test part.
    reconstruction_error : float or None
        Of all levels together; None if the codes cannot be decoded.
    probe : dict
        Score by task and features.

    Example
    -------
    >>> names = Run.__dataclass_fields__
    >>> list(names)[:2]
    ['experiment', 'seed']
    """

    experiment: str
    seed: int
    updates: int
    audio_seconds: float
    training_seconds: float
    tokenizer_updates: float | None
    tokenizer_audio_seconds: float | None
    tokenizer_seconds: float | None
    parameters: int | None
    num_codebooks: int
    codebook_size: int
    learning_updates: list[int]
    learning_cross_entropy: list[float]
    cross_entropy: float
    accuracy: float
    code_entropy: float
    usage: list[float]
    perplexity: list[float]
    reconstruction_error: float | None
    probe: dict[str, dict[str, Score]]


@dataclass(frozen=True)
class Experiment:
    """What was varied.

    Arguments
    ---------
    label : str
        Its name for a person.
    file : str
        Its experiment file.
    overrides : dict
        What the study has changed in it.

    Example
    -------
    >>> Experiment("Mel-RVQ", "muq.yaml", {}).label
    'Mel-RVQ'
    """

    label: str
    file: str
    overrides: dict


@dataclass(frozen=True)
class Group:
    """Experiments that are shown together.

    Arguments
    ---------
    title : str
        Heading.
    experiments : list of str
        Names of the experiments.
    x_name : str or None
        The number that is varied, or None if the experiments are of different kinds.
    x : list of float
        That number of every experiment; empty without one.

    Example
    -------
    >>> Group("Codebooks", ["n1", "n2"], "codebooks", [1, 2]).x
    [1, 2]
    """

    title: str
    experiments: list[str]
    x_name: str | None = None
    x: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A question that the study answers.

    Arguments
    ---------
    text : str
        The question, so that "supported" is a yes.
    measure : str
        What is compared.
    kind : str
        "better": the first experiment is better than the second. "rises": the measure
        gets better with a number. "less_spread": the first varies less over seeds.
    experiments : list of str
        Two, or all along the number.
    x : list of float
        The number of every experiment, of a question of the kind "rises".

    Example
    -------
    >>> Question("Is a better than b?", "probe", "better", ["a", "b"]).kind
    'better'
    """

    text: str
    measure: str
    kind: str
    experiments: list[str]
    x: list[float] = field(default_factory=list)
