"""Text models of the transformers library: which fit, and what of them learns.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from muq_plugins.lobes.quantizers.base import private_randomness

# Kinds of models whose layers have the same names and whose positions begin after the
# number of the padding token.
KINDS = ("roberta", "xlm-roberta")


def load_text_model(
    source: str | Path,
    pretrained: bool = True,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
):
    """Loads a model and its tokenizer, and executes nothing that was downloaded.

    Arguments
    ---------
    source : str or Path
        Model id on the Hugging Face hub, or a folder with config.json and the files
        of a tokenizer.
    pretrained : bool
        False builds the model of the config with random weights.
    revision : str or None
        Branch, tag or commit on the hub.
    cache_dir : str or Path or None
        Where downloads go; None is the usual place of the hub.

    Returns
    -------
    model : nn.Module
        The model in float32, without what pools for other tasks.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.

    Raises
    ------
    OSError
        If there is no model or no tokenizer.
    ValueError
        If it is a model of another kind.

    Example
    -------
    >>> load_text_model("no/where/at/all")
    Traceback (most recent call last):
    ...
    OSError: No text model can be loaded from no/where/at/all: ...
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where = {
        "revision": revision or "main",
        "cache_dir": None if cache_dir is None else str(cache_dir),
        "trust_remote_code": False,
    }
    # What pools for other tasks has no place here: it would learn nothing.
    without_pooler = {"add_pooling_layer": False}
    try:
        config = AutoConfig.from_pretrained(str(source), **where)
        _check_kind(config, source)
        tokenizer = AutoTokenizer.from_pretrained(str(source), **where)
        if pretrained:
            # Building a model draws weights before they are replaced.
            with private_randomness():
                model = AutoModel.from_pretrained(
                    str(source), config=config, **without_pooler, **where
                )
        else:
            model = AutoModel.from_config(config, **without_pooler)
    except OSError as error:
        raise OSError(
            f"No text model can be loaded from {source}: {error}\nGive a model id "
            f"of the Hugging Face hub, or a folder with config.json, the files of "
            f"the tokenizer and, unless pretrained is False, weights."
        ) from error
    return model.float(), tokenizer


def readable_tokens(model: nn.Module, tokenizer, max_tokens: int | None = None) -> int:
    """How many tokens of a text a model reads.

    Arguments
    ---------
    model : nn.Module
        The model.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    max_tokens : int or None
        The wanted number; None for all that the model can read.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ValueError
        If model and tokenizer do not fit together, or the number is out of range.

    Example
    -------
    >>> from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel
    >>> tokenizer = ByT5Tokenizer(extra_ids=0)  # bytes: needs no vocabulary
    >>> model = RobertaModel(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0,
    ...     hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    >>> readable_tokens(model, tokenizer)
    511
    """
    config = model.config
    _check_kind(config, type(model).__name__)
    if tokenizer.pad_token_id != config.pad_token_id:
        raise ValueError(
            f"The padding token is {tokenizer.pad_token_id} for the tokenizer and "
            f"{config.pad_token_id} for the model, which counts positions from it: "
            f"take both from the same folder."
        )
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, the model only "
            f"{config.vocab_size}: take both from the same folder."
        )
    limit = config.max_position_embeddings - config.pad_token_id - 1
    least = tokenizer.num_special_tokens_to_add() + 1
    if max_tokens is not None and not least <= max_tokens <= limit:
        raise ValueError(
            f"max_tokens is {max_tokens}: this model reads {least} to {limit} tokens."
        )
    return limit if max_tokens is None else max_tokens


def frozen_parts(model: nn.Module, trainable: str | int) -> list[nn.Module]:
    """The parts of a model that do not learn.

    Arguments
    ---------
    model : nn.Module
        The model.
    trainable : str or int
        "all", "none", or the number of upper layers that learn.

    Returns
    -------
    list of nn.Module
        The others.

    Raises
    ------
    ValueError
        If it is none of these.

    Example
    -------
    >>> from transformers import ByT5Tokenizer, RobertaConfig, RobertaModel
    >>> tokenizer = ByT5Tokenizer(extra_ids=0)  # bytes: needs no vocabulary
    >>> model = RobertaModel(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0,
    ...     hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    >>> [type(part).__name__ for part in frozen_parts(model, trainable=1)]
    ['RobertaEmbeddings', 'RobertaLayer', 'RobertaPooler']
    """
    layers = list(model.encoder.layer)
    # What pools for other tasks is not used.
    unused = [] if getattr(model, "pooler", None) is None else [model.pooler]
    if trainable == "all":
        return unused
    if trainable == "none":
        return [model]
    if isinstance(trainable, bool) or not isinstance(trainable, int):
        raise ValueError(
            f"trainable is {trainable!r}: give all, none, or the number of upper "
            f"layers that are trained."
        )
    if not 0 <= trainable <= len(layers):
        raise ValueError(
            f"trainable is {trainable}, but the model has {len(layers)} layers."
        )
    if trainable == 0:
        return [model]
    return [model.embeddings, *layers[: len(layers) - trainable], *unused]


def _check_kind(config, source: str | Path | type) -> None:
    """Refuses models that are built in another way."""
    if config.model_type not in KINDS:
        raise ValueError(
            f"{source} is a {config.model_type} model: the text tower takes "
            f"{' or '.join(KINDS)}."
        )
