#!/usr/bin/env python3
r"""Recognises instruments, genres or other classes with MuQ, frozen and then trained.

Families of instruments of the embedded corpus, or the names of a folder's subfolders:

> python recipes/Recognition/train.py hparams/recognition.yaml
> python recipes/Recognition/train.py hparams/recognition.yaml --data_folder /my/music \
    --output_folder results/my_classes
"""

from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.nnet.pooling import StatisticsPooling

import muq_plugins.experiment as experiments
from muq_plugins import PretrainedMuQ
from muq_plugins.data.audio import read_audio
from muq_plugins.data.preparation import check_data, prepare_manifests
from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import FEWEST_GROUPS, interval, mean_draws
from muq_plugins.evaluation.probing.clips import corpus_clips, folder_clips
from muq_plugins.evaluation.probing.tasks import ProbeTask, task_data
from muq_plugins.inference.lora import merge_lora
from muq_plugins.inference.muq import save_muq


class Recognition(sb.Brain):
    """A linear classifier of what MuQ hears, on average over time."""

    def compute_forward(self, batch, stage):
        wavs, lens = (tensor.to(self.device) for tensor in batch.wav)
        pooled = self.modules.pooling(self.modules.muq(wavs, lens), lens)
        return self.modules.classifier(pooled).squeeze(1)

    def compute_objectives(self, predictions, batch, stage):
        names = self.hparams.labels.decode_torch(predictions.argmax(-1))
        self.statistics.append(batch.id, names, batch.label)
        targets = self.hparams.labels.encode_sequence_torch(batch.label)
        return torch.nn.functional.nll_loss(predictions, targets.to(self.device))

    def on_stage_start(self, stage, epoch=None):
        self.statistics = sb.utils.metric_stats.ClassificationStats()
        if stage == sb.Stage.TRAIN:
            self.hparams.muq.freeze = epoch <= self.hparams.frozen_epochs

    def on_stage_end(self, stage, loss, epoch=None):
        if stage == sb.Stage.VALID:
            row = {"loss": loss, "accuracy": self.statistics.summarize("accuracy")}
            self.hparams.train_logger.log_stats({"epoch": epoch}, valid_stats=row)
            meta = {**row, "step": epoch}
            self.checkpointer.save_and_keep_only(meta, max_keys=["accuracy"])

    def init_optimizers(self):
        muq = {"params": self.modules.muq.parameters(), "lr": self.hparams.encoder_lr}
        classifier = {"params": self.modules.classifier.parameters()}
        self.optimizer = self.opt_class([muq, classifier])
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)


def dataset(clips, names, seconds, rate, part):
    """Recordings with their classes: a random crop of each, or its middle."""

    def hear(clip):
        share = torch.rand(1).item() if part == "train" else 0.5
        start = share * max(0, clip.duration - seconds)
        return read_audio(clip.wav, start, seconds, rate)

    pairs = zip(clips, names, strict=True)
    data = {clip.name: {"clip": clip, "label": name} for clip, name in pairs}
    wav = sb.utils.data_pipeline.DynamicItem(["clip"], hear, ["wav"])
    return sb.dataio.dataset.DynamicItemDataset(data, [wav], ["id", "wav", "label"])


def check_seconds(seconds, muq):
    """Refuses crops in which the encoder hears no frame."""
    least = 0 if muq.pad_short_clips else muq.encoder.min_samples / muq.sample_rate
    if seconds < least:
        raise UserError(
            f"seconds is {seconds}: a crop must last {least:.3f} s for one frame of "
            f"the encoder; give more, or muq.pad_short_clips: True."
        )


def check_modules(muq, pooling, **others):
    """Refuses what `save_classifier` could not write down."""
    dtypes = {str(weight.dtype) for weight in muq.parameters()}
    if type(muq) is not PretrainedMuQ or type(pooling) is not StatisticsPooling:
        problem = f"are a {type(muq).__name__} and a {type(pooling).__name__}"
    elif muq.output_all_hiddens:
        problem = "have muq.output_all_hiddens: True"
    elif dtypes != {"torch.float32"}:
        problem = f"have weights of {' and '.join(sorted(dtypes))}"
    else:
        return
    raise UserError(
        f"modules.muq and modules.pooling {problem}, but what a run leaves is built of "
        f"a PretrainedMuQ with one state for each frame, in float32, and a "
        f"StatisticsPooling: take these, muq.output_weighted_sum: True for all hidden "
        f"states, and --precision bf16 for speed."
    )


def save_classifier(run, muq, classifier, labels):
    """Writes what SpeechBrain's EncoderClassifier loads."""
    folder, yaml = run / "classifier", Path(__file__).with_name("classifier.yaml")
    folder.mkdir(exist_ok=True)
    torch.save(classifier.state_dict(), folder / "classifier.ckpt")
    weights = torch.nn.ParameterList([muq.layer_weights])  # of the sum, if there is one
    torch.save(weights.state_dict(), folder / "layer_weights.ckpt")
    labels.save(folder / "label_encoder.txt")
    classes, size = classifier[0].weight.shape
    known = {"run": str(run.resolve()), "embedding_size": size, "num_classes": classes}
    options = {
        "output_norm": muq.output_norm,
        "output_weighted_sum": muq.layer_weights is not None,
        "output_frame_rate": muq.frame_rate,
        "input_sample_rate": muq.input_sample_rate,
        "pad_short_clips": muq.pad_short_clips,
    }
    known |= {f"mean_var_norm.{name}": value for name, value in options.items()}
    text = experiments.resolve_experiment(yaml, known)
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")


def main(argv):
    """Trains, tests, and saves what recognises."""
    experiment = experiments.load_experiment(argv)
    hparams, folder = experiment.hparams, Path(experiment.hparams["output_folder"])
    check_modules(**hparams["modules"])
    check_seconds(hparams["seconds"], hparams["muq"])
    check_data(hparams["data"])
    experiments.save_experiment(experiment, folder)
    manifests, muq = prepare_manifests(**hparams["data"]), hparams["muq"]
    if hparams["data_folder"] is None:
        clips = corpus_clips(manifests)
        task = ProbeTask("family", group="piece", ignore=["mixed"])
    else:
        clips = folder_clips(manifests, hparams["data_folder"])
        task = ProbeTask("class")
    music = task_data(task, clips)  # no piece is in two parts
    classes, facts = music.classes, manifests.facts()
    # A run that goes on must not be tested on what it has learned from before.
    experiments.note_inputs(folder, facts, {"music": facts["hash"]})
    names = {part: [classes[i] for i in music.targets[part]] for part in music.parts}
    heard = hparams["seconds"], muq.input_sample_rate
    parts = {
        part: dataset([clips[i] for i in place], names[part], *heard, part)
        for part, place in music.parts.items()
    }

    hparams["labels"].update_from_iterable(classes)
    hparams["labels"].expect_len(len(classes))
    linear = torch.nn.Linear(2 * muq.width, len(classes))  # of means and deviations
    classifier = torch.nn.Sequential(linear, torch.nn.LogSoftmax(-1))
    hparams["checkpointer"].add_recoverable("classifier", classifier)
    modules = {**hparams["modules"], "classifier": classifier}
    options = experiment.run_opts, hparams["checkpointer"]
    brain = Recognition(modules, hparams["opt_class"], hparams, *options)
    loader, epochs = hparams["loader"], hparams["epoch_counter"]
    shuffled = {**loader, "shuffle": True}
    brain.fit(epochs, parts["train"], parts["valid"], None, shuffled, loader)
    brain.evaluate(parts["test"], max_key="accuracy", test_loader_kwargs=loader)

    usual, tested = max(classes, key=names["train"].count), names["test"]
    share = tested.count(usual) / len(tested)
    said = dict(zip(brain.statistics.ids, brain.statistics.predictions, strict=True))
    heard = [said[clips[i].name] for i in music.parts["test"]]
    hits = [name == true for name, true in zip(heard, tested, strict=True)]
    groups, sure = music.groups["test"], "too few for an interval"
    found = interval(sum(hits) / len(hits), mean_draws(hits, groups))
    if len({*groups}) >= FEWEST_GROUPS:
        sure = f"95% interval {found.low:.3f} to {found.high:.3f}"
    result = (
        f"Accuracy: {found.value:.3f} ({sure}) on {len(tested)} recordings of "
        f"{len({*groups})} pieces that training never heard. Chance: "
        f"{1 / len(classes):.3f}; always {usual!r}: {share:.3f}"
    )
    result = "\n".join([result, *music.notes])  # such as classes that were left out
    with open(folder / "test.txt", "w", encoding="utf-8") as file:
        file.write(f"{result}\n\n")
        brain.statistics.write_stats(file)
    merge_lora(muq.encoder)  # what is saved is an encoder like any other
    save_muq(folder / "inference", muq.encoder, manifests.heard())
    save_classifier(folder, muq, classifier, hparams["labels"])
    print(f"{result}\nReport: {folder / 'test.txt'}")


if __name__ == "__main__":
    experiments.run_script(main)
