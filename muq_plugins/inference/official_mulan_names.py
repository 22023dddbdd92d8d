"""Names of tensors in the official MuQ-MuLan.

Facts about the layout come from the package muq 0.1.0.
"""

PREFIX = "mulan."
MUQ = "audio.model."
# The parameters of the loss, by their names in ours.
CONTRAST = {"log_temperature": "contrast.temperatures", "bias": "contrast.bias"}
# Tensors of official checkpoints that no latent depends on.
UNUSED = (
    "audio.aggregator.",
    "text.model.pooler.",
    "text.model.embeddings.position_ids",
)
# A layer of `LatentTransformer`, ours to theirs.
LAYER = {
    "attention.norm.weight": "0.norm.learned_gamma",
    "attention.query.weight": "0.to_q.weight",
    "attention.key_value.weight": "0.to_kv.weight",
    "attention.query_scale": "0.q_scale",
    "attention.key_scale": "0.k_scale",
    "attention.out.weight": "0.to_out.0.weight",
    "feed_forward.norm.weight": "1.0.learned_gamma",
    "feed_forward.expand.weight": "1.1.weight",
    "feed_forward.contract.weight": "1.4.weight",
}


def official_name(name: str) -> str:
    """The name of a tensor of our towers in an official checkpoint."""
    tower, part, rest = name.split(".", 2)
    if part == "projection":
        return f"{tower}.proj.{rest}"
    if part == "to_latents":
        return f"{tower}_to_latents.{rest.removeprefix('linear.')}"
    if part == "transformer":
        layers, number, tensor = rest.split(".", 2)
        return f"{tower}.transformer.{layers}.{number}.{LAYER[tensor]}"
    return name
