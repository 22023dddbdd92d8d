"""One worker of an extraction, in a process of its own, for tests that kill it.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import multiprocessing

import torch

from muq_plugins.data.labels import LabelWindows, extract_labels
from tests.unit.data.labels.conftest import make_target


def start(folder, manifest, shard_minutes, stale_seconds, done):
    """Starts a worker with the target of the other tests.

    Forked, since a new interpreter would need seconds to begin.
    """
    context = multiprocessing.get_context("fork")
    arguments = (folder, manifest, shard_minutes, stale_seconds, done)
    process = context.Process(target=_work, args=arguments)
    process.start()
    return process


def _work(folder, manifest, shard_minutes, stale_seconds, done):
    # The threads of the parent do not exist here: nobody must wait for them.
    torch.set_num_threads(1)
    target = make_target()
    windows = LabelWindows.in_seconds(target, window=0.8, context=0.2)
    result = extract_labels(
        folder, target, windows, manifest, shard_minutes, stale_seconds=stale_seconds
    )
    with done.get_lock():
        done.value += result.shards
