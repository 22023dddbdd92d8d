"""The settings of our encoders in the form of transformers.

In a file of its own: transformers reads settings long before it can make models.
"""

from typing import Any

from transformers.configuration_utils import PreTrainedConfig

MODEL_TYPE = "muq_plugins"
# Settings that an encoder has decided, and what it calls them.
SIZES = {
    "hidden_size": "width",
    "num_hidden_layers": "num_layers",
    "sampling_rate": "sample_rate",
    "frame_rate": "frame_rate",
}


class MuQPluginsConfig(PreTrainedConfig):
    """The settings of an encoder, which ``encoder`` describes as a part."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        hidden_size: int = 0,
        num_hidden_layers: int = 0,
        sampling_rate: int = 0,
        frame_rate: float = 0.0,
        **others: Any,
    ):
        self.encoder = encoder
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.sampling_rate = sampling_rate
        self.frame_rate = frame_rate
        super().__init__(**others)
