"""Runs that never happened: metrics and diagnostics with realistic curves."""

import math

import numpy as np
import pytest


def make_code_counts(num_codebooks=8, codebook_size=256, frames=20000, seed=0):
    """Counts (N, V) that are steeper than even, with a few dead codes."""
    rng = np.random.default_rng(seed)
    counts = []
    for level in range(num_codebooks):
        steepness = 1.1 - 0.6 * level / max(1, num_codebooks - 1)
        frequencies = np.arange(1, codebook_size + 1.0) ** -steepness
        frequencies[codebook_size - 8 * (level % 4) :] = 0
        frequencies = rng.permutation(frequencies / frequencies.sum())
        counts.append(rng.multinomial(frames, frequencies))
    return np.array(counts)


def make_tokenizer_rows(num_codebooks=8, codebook_size=256, steps=400, seed=0):
    """Train rows every 10 steps and validation rows every 100."""
    rng = np.random.default_rng(seed)
    rows = []
    levels = np.arange(num_codebooks + 1)
    for step in range(10, steps + 1, 10):
        progress = 1 - math.exp(-4 * step / steps)
        per_level = 0.81 * (1 - progress * (1 - 0.75**levels))
        row = {
            "kind": "train",
            "stage": "tokenizer",
            "step": step,
            "time": 0.1 * step,
            "reconstruction_error": per_level[-1] * rng.normal(1, 0.03),
            "commitment_loss": 0.3 * (1.6 - progress) * rng.normal(1, 0.05),
            "codebook_loss": 0.3 * (1.6 - progress) * rng.normal(1, 0.05),
            "lr": 1e-3,
            "grad_norm": 0.5 * (2 - progress) * rng.normal(1, 0.1),
            "audio_seconds_per_second": rng.normal(900, 40),
        }
        row["loss"] = row["reconstruction_error"] + 1.25 * row["codebook_loss"]
        rows.append(row)
        if step % 100 == 0:
            used = np.clip(progress - 0.02 * levels[:-1], 0.05, 1)
            dead = np.round((1 - used) * codebook_size)
            rows.append(
                {
                    "kind": "valid",
                    "stage": "tokenizer",
                    "step": step,
                    "time": 0.1 * step,
                    "loss": per_level[-1] + 0.4,
                    "reconstruction_error": per_level[-1] * 1.03,
                    "commitment_loss": 0.3 * (1.6 - progress),
                    "codebook_loss": 0.3 * (1.6 - progress),
                    "usage": (1 - dead / codebook_size).tolist(),
                    "perplexity": (0.6 * used * codebook_size).tolist(),
                    "dead_codes": dead.astype(int).tolist(),
                    "reconstruction_error_per_level": (per_level * 1.03).tolist(),
                }
            )
    return rows


def make_pretrain_rows(
    num_codebooks=8, codebook_size=256, steps=600, seed=0, learned=1.0
):
    """Train rows every 5 steps, validation rows every 50; `learned` 0 is at chance."""
    rng = np.random.default_rng(seed)
    chance = math.log(codebook_size)
    position = np.linspace(0, 1, num_codebooks)
    entropy = chance - 0.95 + 0.6 * position
    final = entropy - (1.5 - 1.2 * position) * learned
    rows = []
    for step in range(5, steps + 1, 5):
        fall = 1 - math.exp(-8 * step / steps)
        slow = 1 - math.exp(-3 * step / steps)
        loss = chance * (1 + 0.01 * math.exp(-step / 20))
        loss = loss - learned * ((chance - entropy) * fall + (entropy - final) * slow)
        accuracy = 1 / codebook_size + learned * (0.4 - 0.33 * position) * slow
        train = loss + rng.normal(0, 0.05) + rng.normal(0, 0.02, num_codebooks)
        row = {
            "kind": "train",
            "stage": "pretrain",
            "step": step,
            "time": 0.4 * step,
            "loss": train.mean(),
            "lr": 5e-4 * min(1, step / 100) * (1 - 0.9 * step / steps),
            "grad_norm": 1.2 * math.exp(rng.normal(0, 0.2)) * (1.5 - slow),
            "audio_seconds_per_second": rng.normal(210, 8),
            "cross_entropy": train.mean(),
            "accuracy": accuracy.mean() * rng.normal(1, 0.05),
            "cross_entropy_per_codebook": train.tolist(),
            "accuracy_per_codebook": accuracy.tolist(),
        }
        rows.append(row)
        if step % 50 == 0:
            rows.append(
                {
                    "kind": "valid",
                    "stage": "pretrain",
                    "step": step,
                    "time": 0.4 * step,
                    "loss": loss.mean() + 0.03,
                    "cross_entropy": loss.mean() + 0.03,
                    "accuracy": accuracy.mean(),
                    "cross_entropy_per_codebook": (loss + 0.03).tolist(),
                    "accuracy_per_codebook": accuracy.tolist(),
                    "code_entropy": entropy.mean(),
                    "code_entropy_per_codebook": entropy.tolist(),
                    "chance": chance,
                }
            )
    return rows


def make_mel(levels=(1, 2, 8), seconds=5, seed=0):
    """A melody as log-mel (frames, 128), and copies that get less blurred."""
    rng = np.random.default_rng(seed)
    frames, bands = 100 * seconds, np.arange(128)
    mel = np.full((frames, 128), -1.2)
    for start in range(0, frames, 50):
        pitch = rng.integers(18, 50)
        decay = np.exp(-np.arange(min(120, frames - start)) / 40)
        for harmonic in range(1, 6):
            band = pitch + 26 * math.log2(harmonic)
            line = np.exp(-0.5 * ((bands - band) / 1.2) ** 2) * 2.6 / harmonic**0.5
            mel[start : start + len(decay)] += decay[:, None] * line
    mel += rng.normal(0, 0.15, mel.shape)
    reconstructions = []
    for level in levels:
        width = max(1, round(12 / level))
        kernel = np.ones(width) / width
        blurred = np.apply_along_axis(np.convolve, 1, mel, kernel, mode="same")
        reconstructions.append(blurred + rng.normal(0, 0.3 / level, mel.shape))
    return mel, np.array(reconstructions), np.array(levels)


@pytest.fixture(scope="session")
def synthetic():
    """The makers of runs, by name."""
    return {
        "code_counts": make_code_counts,
        "tokenizer_rows": make_tokenizer_rows,
        "pretrain_rows": make_pretrain_rows,
        "mel": make_mel,
    }
