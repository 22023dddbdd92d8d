#!/usr/bin/env python3
r"""Makes a small, fast student of a large encoder, or of a MuQ-MuLan's audio tower.

It ends with a table of teacher, student, and the student as ONNX files: cosine to the
teacher, probe, size and speed. On the embedded corpus, or on any folder of recordings:

> python recipes/MuQ/distil.py hparams/distil.yaml
> python recipes/MuQ/distil.py hparams/distil.yaml --teacher results/muq/1234
> python recipes/MuQ/distil.py hparams/distil.yaml --data_folder /my/music \
    --teacher OpenMuQ/MuQ-large-msd-iter
> python recipes/MuQ/distil.py hparams/distil_mulan.yaml \
    --teacher results/muq_mulan/1234 --clip_seconds 4
"""

import os
from pathlib import Path

# Before torch is imported: threads that wait for each other must not take the cores
# of other programs. On two busy cores this makes training about ten times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from train import train
from train_tokenizer import stages_of

from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.errors import UserError, needs
from muq_plugins.evaluation.distillation import FOLDER, Model, compare
from muq_plugins.evaluation.pages import report
from muq_plugins.experiment import load_experiment, run_script, stages
from muq_plugins.inference.export import export_onnx
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import MuQ
from muq_plugins.inference.teachers import check_head


def onnx_states(path):
    """The states or the vector of an exported file, by onnxruntime on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )

    def states(wav):
        (found,) = session.run(None, {"wavs": wav[None].numpy()})
        return torch.from_numpy(found).flatten(0, -2)

    return states


def compare_forms(experiment):
    """Exports the student of a finished run; compares all forms with its teacher."""
    hparams = experiment.hparams
    folder = Path(hparams["output_folder"])
    objective = hparams["modules"]["pretrain"].objectives["distillation"].cpu().eval()
    features = objective.features
    model = MuQ.from_pretrained(folder, "cpu")
    student = model.mods.encoder

    def torch_states(wav):
        return student(wav[None]).last_hidden_state[0]

    def say(states):
        return objective.say(states[None])[0]

    if hparams["save_vectors"] is not None:  # the head is a part of this student
        vectors = hparams["save_vectors"](
            folder / "mulan", student, objective.head, heard=model.trained_on
        )
        model = MuQMuLan.from_pretrained(vectors, "cpu")
        student = model.mods.audio
        torch_states, say = (lambda wav: student(wav[None])), (lambda vector: vector)

    weights, notes = sum(p.numel() for p in student.parameters()), []
    forms = {"student": (torch_states, 4 * weights)}
    try:
        needs("Comparing ONNX files", "export", "onnx", "onnxscript", "onnxruntime")
        for name, int8 in (("ONNX", False), ("ONNX in int8", True)):
            file = f"student{'_int8' if int8 else ''}.onnx"
            path = export_onnx(model, folder / FOLDER / file, int8=int8)
            forms[f"student, {name}"] = onnx_states(path), path.stat().st_size
    except UserError as error:
        notes.append(f"There is no ONNX file. {error}")
    # As it is listened to in training; of vectors of clips there is no frame rate.
    rates = features.sample_rate, getattr(features, "frame_rate", 0.0)
    teacher = (lambda wav: features(wav[None])[0][0]), (lambda states: states)
    # Of features of one's own nobody has counted those of their teacher.
    counted = getattr(
        features, "weights", sum(p.numel() for p in features.parameters())
    )
    models = [Model("teacher", *teacher, *rates, counted, 4 * counted)]
    for name, (states, size) in forms.items():
        models.append(Model(name, states, say, *rates, weights, size))
    manifests = prepare_manifests(**hparams["data"])
    about = hparams["clip_seconds"], notes, str(hparams["teacher"])
    page = compare(folder / FOLDER, models, manifests, *about)
    report(folder)  # again, with a link to this page
    print(f"Teacher and student: {page}")


def main(argv):
    """Trains the student that the command line asks for, and compares."""
    experiment = load_experiment(argv)
    sb.utils.distributed.ddp_init_group(experiment.run_opts)
    if experiment.hparams["save_vectors"] is not None:
        objectives = experiment.hparams["modules"]["pretrain"].objectives
        check_head(objectives["distillation"].head)
    progress = stages([*stages_of(experiment.hparams), "comparison with the teacher"])
    train(experiment, progress)
    next(progress)
    with torch.no_grad():
        run_on_main(compare_forms, args=[experiment])


if __name__ == "__main__":
    run_script(main)
