"""MuQ for users: waveforms in, hidden states out.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor

from muq_plugins.inference.folders import (
    find_folder,
    load_weights,
    read_config,
    save_folder,
)
from muq_plugins.lobes.encoder import EncoderOutput, MuQEncoder

KIND = "muq_encoder"

# What SpeechBrain's from_hparams needs to build the same model from the folder.
HYPERPARAMETERS = """\
# Inference with SpeechBrain: muq_plugins.MuQ.from_hparams(source="this folder")
sample_rate: {sample_rate}
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
encoder: !new:muq_plugins.lobes.MuQEncoder
{arguments}
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
    custom_hooks:
        encoder: !name:muq_plugins.inference.folders.pretrainer_hook
"""


class MuQ(Pretrained):
    """A trained MuQ encoder, in evaluation mode and without gradients.

    Arguments
    ---------
    modules : dict
        ``encoder``: any module that follows the Encoder contract.
    hparams : dict
        ``sample_rate`` and ``audio_normalizer``.
    **kwargs : dict
        Further arguments of SpeechBrain's ``Pretrained``, such as ``run_opts``.

    Example
    -------
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "inference", encoder)
    >>> model = MuQ.from_pretrained(folder)
    >>> out = model(torch.randn(1, 24000))
    >>> out.last_hidden_state.shape, len(out.hidden_states)
    (torch.Size([1, 25, 32]), 3)
    """

    HPARAMS_NEEDED = ["sample_rate"]
    MODULES_NEEDED = ["encoder"]

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "cpu") -> MuQ:
        """Loads a model; nothing in the folder is executed.

        Arguments
        ---------
        source : str or Path
            A run folder (``results/<experiment>/<seed>``) or its inference folder.
        device : str
            Where the model goes.

        Returns
        -------
        MuQ
            The model.

        Raises
        ------
        FileNotFoundError
            If there is no trained model.
        ValueError
            If the folder holds something else, or weights that do not fit.
        """
        folder = find_folder(source, "MuQ model")
        config = read_config(folder)
        if config.get("kind") != KIND:
            raise ValueError(
                f"{folder} holds a {config.get('kind', 'model of unknown kind')}, not "
                f"a {KIND}: give the folder of a pre-training run."
            )
        encoder = MuQEncoder(**config["encoder"])
        load_weights(encoder, folder)
        hparams = {"sample_rate": encoder.sample_rate}
        return cls(
            modules={"encoder": encoder}, hparams=hparams, run_opts={"device": device}
        )

    @torch.no_grad()
    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples) at the model's sample rate, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        EncoderOutput
            ``last_hidden_state`` and ``hidden_states``, on the model's device.
        """
        wavs = wavs.to(self.device)
        wav_lens = None if wav_lens is None else wav_lens.to(self.device)
        return self.mods.encoder(wavs, wav_lens)


def save_muq(folder: str | Path, encoder: MuQEncoder) -> Path:
    """Writes an inference folder for `MuQ.from_pretrained` and ``from_hparams``.

    Arguments
    ---------
    folder : str or Path
        Where; an older one is replaced.
    encoder : MuQEncoder
        The trained encoder.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    TypeError
        If the encoder cannot describe itself by a ``config``.

    Example
    -------
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_muq(getfixture("tmp_path") / "x", encoder)
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'encoder.ckpt', 'hyperparams.yaml', 'model.safetensors']
    """
    if not isinstance(encoder, MuQEncoder):
        raise TypeError(
            f"Only a MuQEncoder can be saved as MuQ, not a {type(encoder).__name__}."
        )
    arguments = yaml.safe_dump(encoder.config, sort_keys=False)
    hyperparameters = HYPERPARAMETERS.format(
        sample_rate=encoder.sample_rate,
        arguments="".join(f"    {line}\n" for line in arguments.splitlines()).rstrip(),
    )
    config = {"kind": KIND, "encoder": encoder.config}
    return save_folder(folder, encoder, config, hyperparameters, loadable="encoder")
