#!/usr/bin/env python3
r"""Trains MuQ-MuLan: music and text in one space (arXiv 2501.01108).

On the embedded corpus with captions in English and Chinese; an encoder is pre-trained
first unless one is given. Or on any folder of recordings and a file of captions:

> python recipes/MuQ/train_mulan.py hparams/muq_mulan.yaml
> python recipes/MuQ/train_mulan.py hparams/muq_mulan.yaml --encoder results/muq/1234
> python recipes/MuQ/train_mulan.py hparams/muq_mulan.yaml --data_folder /my/music \
>     --captions_file captions.json
"""

import os
from itertools import islice
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs. On two busy cores this makes training about ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
from speechbrain.utils.distributed import infer_device, run_on_main
from speechbrain.utils.seed import seed_everything
from train import train as pretrain
from train_tokenizer import check as check_batches
from train_tokenizer import check_parts, stages_of

from muq_plugins.brains import MuLanBrain
from muq_plugins.brains.processes import share_pairs, world_size
from muq_plugins.data.clips import training_loader
from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import (
    add_captions,
    check_data,
    prepare_manifests,
    read_captions,
)
from muq_plugins.errors import UserError, given_at, given_by_user
from muq_plugins.evaluation.pages import headline, report
from muq_plugins.evaluation.zero_shot.scores import evaluate_mulan, save_scores
from muq_plugins.experiment import (
    check_stage,
    has_results,
    load_experiment,
    load_stage,
    note_inputs,
    run_script,
    save_experiment,
    stages,
)
from muq_plugins.inference.mulan import MuQMuLan, save_mulan
from muq_plugins.inference.mulan_parts import MuLanParts, check_towers
from muq_plugins.inference.muq import MuQ, check_encoder
from muq_plugins.lobes.batch_norm import measure_batch_statistics
from muq_plugins.lobes.lengths import without_padding
from muq_plugins.lobes.mulan.text_models import check_text_model
from muq_plugins.lobes.parts import check_clips, describe, encoder_fingerprint

# What the batch normalisation of an untrained encoder is measured on.
BATCHES, CLIPS_AT_ONCE = 20, 16


def check(experiment):
    """Refuses what would fail later: models, captions, music and batches."""
    hparams = experiment.hparams
    share_pairs(hparams["clips_per_update"], world_size())
    if hparams["encoder"] in (None, "untrained"):
        check_stage(hparams["pretraining"])
        before = load_stage(experiment, hparams["pretraining"]).hparams
        if "pretrain" not in before.get("modules", {}):
            raise UserError(
                f"pretraining.experiment is {hparams['pretraining']['experiment']}, "
                f"which trains no encoder: give a file such as hparams/muq.yaml."
            )
        encoder = before["encoder"]
        if hparams["encoder"] is None:
            with given_at("pretraining"):
                check_batches(before)
                check_parts(before, before["modules"]["pretrain"])
    else:
        with given_by_user():
            encoder = MuQ.from_pretrained(hparams["encoder"], "cpu").mods.encoder
    with given_by_user():
        check_clips(encoder, hparams["clip_seconds"], "clip_seconds")
    if hparams["text_model"] is not None:
        with given_by_user():
            check_text_model(hparams["text_model"])
    if hparams["captions_file"] is not None:
        read_captions(hparams["captions_file"])
        if hparams["data_folder"] is None:
            raise UserError(
                f"captions_file is {hparams['captions_file']!r}, but data_folder is "
                "null: give the folder of the recordings that they are of."
            )
    towers = [hparams[name].func for name in ("audio_tower", "text_tower")]
    towers = [getattr(tower, "__self__", tower) for tower in towers]  # of from_folder
    if all(isinstance(tower, type) for tower in towers):  # what else makes them, later
        check_towers(*towers)
    with given_at("loss"):
        describe(hparams["loss"])
    check_data(hparams["data"])


def load_encoder(experiment, manifests):
    """The encoder of an experiment, and what it has heard.

    It is a given one, one as it is made, or a new one.
    """
    hparams = experiment.hparams
    source = hparams["encoder"]
    if source == "untrained":
        stage = load_stage(experiment, hparams["pretraining"]).hparams
        encoder = stage["encoder"]
        with given_at("pretraining: encoder"):
            check_encoder(encoder)
        normalise(encoder, manifests, stage["mel_statistics"])
        # The tower keeps the running statistics of batch normalisation as they are,
        # so those of an encoder that has heard nothing would stay meaningless.
        loader = training_loader(
            manifests.train,
            hparams["clip_seconds"],
            CLIPS_AT_ONCE,
            hparams["seed"],
            sample_rate=encoder.sample_rate,
        )
        heard = (
            without_padding(batch.wavs, batch.wav_lens, encoder.min_samples)
            for batch in islice(loader, BATCHES)
        )
        measure_batch_statistics(encoder, heard)
        return encoder, manifests.heard()
    if source is None:
        before = load_stage(experiment, hparams["pretraining"])
        source = pretrain(before, stages(stages_of(before.hparams), "Encoder, "))
        sb.create_experiment_directory(hparams["output_folder"])  # its log goes on
    with given_by_user():
        model = MuQ.from_pretrained(source, "cpu")
        return model.mods.encoder.requires_grad_(), model.trained_on


def heard_by_both(pairs, encoder):
    """What a MuQ-MuLan was trained on: pairs of music and text, the encoder before."""
    return pairs if encoder == pairs else f"{pairs}; its encoder before: {encoder}"


def train_mulan(experiment):
    """Trains the two towers of an experiment and returns its run folder."""
    hparams, run_opts = experiment.hparams, experiment.run_opts
    folder = Path(hparams["output_folder"])
    names = ["music", f"training ({hparams['optimizer_step_limit']} updates)"]
    if hparams["encoder"] is None:
        names.insert(1, "encoder")
    progress = stages([*names, "test, evaluation and report"])
    next(progress)
    with given_by_user():
        manifests = prepare_manifests(**hparams["data"])
        if hparams["captions_file"] is not None:
            manifests = add_captions(
                manifests, hparams["captions_file"], hparams["data_folder"]
            )
        captions = hparams["captions"](
            {**manifests.train, **manifests.valid, **manifests.test}
        )
    if hparams["encoder"] is None:
        next(progress)
    encoder, heard = load_encoder(experiment, manifests)
    models = {}
    if hparams["encoder"] != "untrained":
        models["encoder"] = encoder_fingerprint(encoder)
    run_on_main(note_inputs, args=[folder, manifests.facts(), models])

    with given_by_user():
        # The text model: a given one, or a new one whose tokenizer learns from captions
        # of the training part.
        source, given = hparams["text_model"], hparams["text_model"] is not None
        if not given:
            source = folder / "text_model"
        # What was learned belongs to the pieces of the tokenizer of then.
        if not given and not (source.is_dir() and has_results(folder)):
            texts = captions.captions(manifests.train, hparams["tokenizer_captions"])
            run_on_main(hparams["new_text_model"], args=[source, texts])

        # What came before depends on what was there already; the weights must not.
        seed_everything(hparams["seed"])
        stage = hparams["stage"](
            audio_tower=hparams["audio_tower"](encoder),
            text_tower=hparams["text_tower"](source, pretrained=given),
        )
        with given_at("stage"):  # as it is saved at the end
            MuLanParts(
                stage.audio_tower, stage.text_tower, hparams["clip_seconds"], stage.loss
            ).describe()
        brain = MuLanBrain(
            captions=captions,
            modules={"mulan": stage},
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
        )
        train_loader, valid_loader, test_loader = brain.make_loaders(manifests)
    next(progress)
    brain.fit(train_loader, valid_loader)
    next(progress)
    brain.validate(test_loader, kind="test")

    def finish():
        inference = save_mulan(
            folder / "inference",
            stage.audio_tower,
            stage.text_tower,
            clip_seconds=hparams["clip_seconds"],
            loss=stage.loss,
            heard=heard_by_both(manifests.heard(), heard),
        )
        device = run_opts.device or infer_device()
        model = MuQMuLan.from_pretrained(inference, device=device)
        # Latents are kept: an evaluation that was interrupted goes on.
        kept, progress = folder / "latents", not run_opts.noprogressbar
        save_scores(folder, evaluate_mulan(model, manifests.test, kept, progress))
        page = report(folder)
        print("\n".join([*headline(folder), f"Report: {page}"]))

    run_on_main(finish)
    return folder


def main(argv):
    """Trains the towers that the command line asks for."""
    experiment = load_experiment(argv)
    sb.utils.distributed.ddp_init_group(experiment.run_opts)
    check(experiment)
    output_folder = experiment.hparams["output_folder"]
    run_on_main(save_experiment, args=[experiment, output_folder])
    sb.create_experiment_directory(output_folder)
    train_mulan(experiment)


if __name__ == "__main__":
    run_script(main)
