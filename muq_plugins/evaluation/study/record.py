"""What a study is made of: experiments, groups, questions, tasks and runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Task:
    """A label that was read off the encoders."""

    name: str  # for example "corpus/family"
    level: str | None  # "acoustic", "semantic" or None
    chance: float  # what guessing reaches in balanced accuracy
    classes: list[str]  # the classes
    targets: np.ndarray  # class of every test clip (clips,)
    pieces: np.ndarray  # number of the piece that every test clip is from (clips,)


@dataclass(frozen=True, eq=False)
class Score:
    """What a probe has read off one kind of features."""

    layers: list[float]  # balanced accuracy of every hidden state on the test part
    chosen: int  # position of the one that validation has chosen
    # whether each test clip was recognised from it (clips,); None if unknown
    hits: np.ndarray | None

    @property
    def value(self) -> float:
        """Balanced accuracy of the chosen layer."""
        return self.layers[self.chosen]


@dataclass(frozen=True, eq=False)
class Run:
    """One training: an experiment with one seed."""

    experiment: str  # name of the experiment
    seed: int  # its seed
    updates: int  # optimizer steps
    audio_seconds: float  # seconds of audio that were trained on
    training_seconds: float  # how long it took
    # the same of the tokenizer; None if none was trained
    tokenizer_updates: float | None
    # the same of the tokenizer; None if none was trained
    tokenizer_audio_seconds: float | None
    # the same of the tokenizer; None if none was trained
    tokenizer_seconds: float | None
    parameters: int | None  # values in the saved encoder
    num_codebooks: int  # the target's codes
    codebook_size: int  # the target's codes
    learning_updates: list[int]  # steps at which it was validated
    # masked cross-entropy there, in nat, mean over codebooks
    learning_cross_entropy: list[float]
    # masked prediction and the codes' own entropy on the test part
    cross_entropy: float
    accuracy: float  # masked prediction and the codes' own entropy on the test part
    code_entropy: float  # masked prediction and the codes' own entropy on the test part
    usage: list[float]  # of every codebook, on the test part
    perplexity: list[float]  # of every codebook, on the test part
    # of all levels together; None if the codes cannot be decoded
    reconstruction_error: float | None
    probe: dict[str, dict[str, Score]]  # score by task and features


@dataclass(frozen=True)
class Experiment:
    """What was varied."""

    label: str  # its name for a person
    file: str  # its experiment file
    overrides: dict  # what the study has changed in it


@dataclass(frozen=True)
class Group:
    """Experiments that are shown together."""

    title: str  # heading
    experiments: list[str]  # names of the experiments
    # the number that is varied, or None if the experiments are of different kinds
    x_name: str | None = None
    # that number of every experiment; empty without one
    x: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A question that the study answers."""

    text: str  # the question, so that "supported" is a yes
    measure: str  # what is compared
    # "better": the first experiment is better than the second. "rises": the measure
    # gets better with a number. "less_spread": the first varies less over seeds
    kind: str
    experiments: list[str]  # two, or all along the number
    # the number of every experiment, of a question of the kind "rises"
    x: list[float] = field(default_factory=list)
