"""Which options are SpeechBrain's, and which of them an experiment file may set.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from dataclasses import fields

from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

#: Every name that SpeechBrain's Brain takes from the hparams if it finds it there.
RUN_OPTIONS = frozenset(field.name for field in fields(RunOptions))

#: Run options that take any number of values.
LIST_OPTIONS = frozenset({"jit_module_keys", "compile_module_keys"})

#: Run options that exist on the command line (the others SpeechBrain finds out).
COMMAND_LINE_OPTIONS = (RUN_OPTIONS & HELP_TEXTS.keys()) | LIST_OPTIONS

#: Run options without a value: giving one switches it on.
FLAG_OPTIONS = frozenset(
    field.name
    for field in fields(RunOptions)
    if field.default is False and field.name in COMMAND_LINE_OPTIONS
)

#: Run options that an experiment file may set as top-level keys. They change what
#: is learned or when it is saved, so they belong to the experiment and into the
#: file that reproduces it; SpeechBrain's Brain reads them from the hparams. All
#: other run options say how this one run is carried out (device, debugging,
#: compilation, distribution); in a file they would silently follow it to machines
#: where they are wrong, so there they are an error.
TRAINING_SETTINGS = frozenset(
    {
        "precision",
        "eval_precision",
        "grad_accumulation_factor",
        "max_grad_norm",
        "optimizer_step_limit",
        "nonfinite_patience",
        "skip_nonfinite_grads",
        "ckpt_interval_minutes",
        "ckpt_interval_steps",
        "remove_vector_weight_decay",
        "find_unused_parameters",
    }
)
