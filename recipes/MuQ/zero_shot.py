#!/usr/bin/env python3
"""Tests a model of audio and text on what it was not trained for.

Tags and classes by the similarity of clips to texts, and retrieval of clips by their
captions and of captions by their clips:

> python recipes/MuQ/zero_shot.py hparams/zero_shot/zero_shot_corpus.yaml \
    --model results/muq_mulan/1234
> python recipes/MuQ/zero_shot.py hparams/zero_shot/zero_shot_magnatagatune.yaml \
    --model OpenMuQ/MuQ-MuLan-large --clips.prepare.data_folder /data/mtt

Latents of audio are kept: an evaluation that was interrupted goes on, and other prompts
or tags need no new ones.
"""

import dataclasses
import os
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import infer_device

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.evaluation.intervals import plain
from muq_plugins.evaluation.zero_shot.clips import audio_latents, text_latents
from muq_plugins.evaluation.zero_shot.page import save_zero_shot, zero_shot_report
from muq_plugins.evaluation.zero_shot.scores import (
    caption_scores,
    class_accuracy,
    distinct_captions,
    least_similarity,
    retrieval_of,
    tag_scores,
)
from muq_plugins.experiment import (
    check_run,
    load_experiment,
    refuse_training_options,
    resolve_experiment,
    run_script,
    save_experiment,
)
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.tags import embed_tags, read_prompts


def find_prompts(experiment):
    """The file of prompts: beside the experiment, or where the command line says."""
    given = Path(experiment.hparams["prompts"])
    places = [experiment.path.parent]
    if "prompts" in experiment.overrides:
        places = [Path(), *places]
    found = [place / given for place in places if (place / given).is_file()]
    if not found:
        folders = " or ".join(str(place.resolve()) for place in places)
        raise UserError(
            f"There is no file of prompts {given} in {folders}: give one with "
            "--prompts."
        )
    return found[0].resolve()


@torch.no_grad()
def evaluate(model, clips, prompts, latents_folder, progress):
    """Scores of a model on clips, as `zero_shot.json` keeps them."""
    scores = {
        "fingerprint": model.fingerprint,
        "data": clips.name,
        "clips": len(clips.files),
        "left_out": list(clips.left_out),
        "groups": len(set(clips.groups)),
        "clip_seconds": model.clip_seconds,
    }
    audio = audio_latents(model, clips.files, latents_folder, progress)
    if clips.tags:
        texts = embed_tags(model, clips.spoken, prompts).numpy()
        scores["prompts"] = prompts
        scores["texts_alike"] = least_similarity(texts)
        scores["tagging"] = plain(tag_scores(clips, audio, texts), "draws")
        scores["accuracy"] = class_accuracy(clips, audio, texts)
    if clips.texts:
        by_kind, latents = {}, []
        for kind, captions in clips.texts.items():
            one = dataclasses.replace(clips, captions=captions)
            captions = distinct_captions(one)
            latents.append(text_latents(model, captions))
            by_kind[kind] = caption_scores(one, audio, captions, latents[-1])
        scores["texts_alike"] = least_similarity(np.concatenate(latents))
        scores |= retrieval_of(by_kind)
    return scores


def main(argv):
    """Runs the evaluation that the command line asks for."""
    experiment = load_experiment(argv)
    hparams, run_opts = experiment.hparams, experiment.run_opts
    refuse_training_options(run_opts, hparams)
    folder = hparams["output_folder"]
    prompts_file = find_prompts(experiment)
    # The file that is saved lies elsewhere, and is to run by itself.
    values = {**experiment.overrides, "prompts": str(prompts_file)}
    experiment = dataclasses.replace(
        experiment, yaml_text=resolve_experiment(experiment.path, values)
    )
    check_run(experiment, folder)
    with given_by_user():
        prompts = read_prompts(prompts_file)
        model = MuQMuLan.from_pretrained(
            hparams["model"], device=run_opts.device or infer_device()
        )
    save_experiment(experiment, folder)
    with given_by_user():  # a corpus may have to be made first
        clips = hparams["clips"]()
    sb.create_experiment_directory(folder)
    kept, progress = hparams["latents_folder"], not run_opts.noprogressbar
    scores = evaluate(model, clips, prompts, kept, progress)
    save_zero_shot(folder, {"model": str(hparams["model"]), **scores})
    page, headline = zero_shot_report(folder)
    print("\n".join([*headline, f"Report: {page}"]))


if __name__ == "__main__":
    run_script(main)
