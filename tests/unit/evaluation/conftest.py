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
    rng, rows, levels = np.random.default_rng(seed), [], np.arange(num_codebooks + 1)
    for step in range(10, steps + 1, 10):
        place = {"stage": "tokenizer", "step": step, "time": 0.1 * step}
        progress = 1 - math.exp(-4 * step / steps)
        errors = 0.81 * (1 - progress * (1 - 0.75**levels))
        distance = 0.48 - 0.3 * progress
        terms = {"commitment_loss": distance, "codebook_loss": distance}
        terms |= {"reconstruction_error": errors[-1], "loss": errors[-1] + 0.4}
        speed = {"grad_norm": 0.5 * (2 - progress), "audio_seconds_per_second": 900.0}
        noisy = {k: v * rng.normal(1, 0.05) for k, v in (terms | speed).items()}
        rows.append({"kind": "train", **place, "lr": 1e-3, **noisy})
        if step % 100 == 0:
            used = np.clip(progress - 0.02 * levels[:-1], 0.05, 1)
            dead = np.round((1 - used) * codebook_size)
            measured = {
                "usage": 1 - dead / codebook_size,
                "perplexity": 0.6 * used * codebook_size,
                "dead_codes": dead.astype(int),
                "reconstruction_error_per_level": errors * 1.03,
            }
            measured = {key: value.tolist() for key, value in measured.items()}
            rows.append({"kind": "valid", **place, **terms, **measured})
    return rows


def make_pretrain_rows(num_codebooks=8, codebook_size=256, steps=600, seed=0):
    """Train rows every 5 steps, validation rows every 50."""
    rng, rows, chance = np.random.default_rng(seed), [], math.log(codebook_size)
    position = np.linspace(0, 1, num_codebooks)
    entropy = chance - 0.95 + 0.6 * position

    def measured(loss, accuracy):
        return {
            **{"loss": loss.mean(), "cross_entropy": loss.mean()},
            "accuracy": accuracy.mean(),
            "cross_entropy_per_codebook": loss.tolist(),
            "accuracy_per_codebook": accuracy.tolist(),
        }

    for step in range(5, steps + 1, 5):
        place = {"stage": "pretrain", "step": step, "time": 0.4 * step}
        fall, slow = (1 - math.exp(-rate * step / steps) for rate in (8, 3))
        loss = chance * (1 + 0.01 * math.exp(-step / 20))
        loss = loss - (chance - entropy) * fall - (1.5 - 1.2 * position) * slow
        accuracy = 1 / codebook_size + (0.4 - 0.33 * position) * slow
        train = loss + rng.normal(0, 0.05) + rng.normal(0, 0.02, num_codebooks)
        optimised = {
            "lr": 5e-4 * min(1, step / 100) * (1 - 0.9 * step / steps),
            "grad_norm": 1.2 * math.exp(rng.normal(0, 0.2)) * (1.5 - slow),
            "audio_seconds_per_second": rng.normal(210, 8),
        }
        optimised |= measured(train, accuracy)
        rows.append({"kind": "train", **place, **optimised})
        if step % 50 == 0:
            counting = {"code_entropy": entropy.mean(), "chance": chance}
            counting["code_entropy_per_codebook"] = entropy.tolist()
            valid = measured(loss + 0.03, accuracy)
            rows.append({"kind": "valid", **place, **valid, **counting})
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
