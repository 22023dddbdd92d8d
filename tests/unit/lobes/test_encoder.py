"""The encoder: size, padding, parity with transformers, gradients."""

import copy

import pytest
import torch
from transformers import Wav2Vec2ConformerConfig
from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer

from muq_plugins.lobes import Conformer, MuQEncoder, ResidualFrontEnd
from muq_plugins.lobes.conformer import RotarySelfAttention


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = MuQEncoder(
        32, num_layers=3, num_heads=4, ffn_width=64, conv_channels=4, dropout=0.1
    )
    encoder(torch.randn(4, 24000))  # running statistics that are not 0 and 1
    return encoder.eval()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_model_has_the_published_number_of_parameters():
    with torch.device("meta"):  # sizes without memory
        front_end = ResidualFrontEnd(n_mels=128, channels=512, width=1024)
        conformer = Conformer(1024, 12, 16, 4096)
    assert count(front_end) == 26_233_856
    assert count(conformer.layers[0]) == 24_175_616
    assert count(conformer.layer_norm) == 2_048
    assert count(front_end) + count(conformer) == 316_343_296


def test_hidden_states(encoder):
    out = encoder(torch.randn(2, 24000))
    assert [state.shape for state in out.hidden_states] == [(2, 25, 32)] * 4
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)


def test_parity_with_the_conformer_of_transformers(encoder):
    config = Wav2Vec2ConformerConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_act="swish",
        position_embeddings_type="rotary",
        conv_depthwise_kernel_size=31,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    config._attn_implementation = "eager"
    theirs = modeling_wav2vec2_conformer.Wav2Vec2ConformerEncoder(config).eval()
    missing = theirs.load_state_dict(encoder.conformer.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all(
        "pos_conv_embed" in key or "inv_freq" in key for key in missing.missing_keys
    )
    hidden = torch.randn(2, 25, 32)
    lengths = torch.tensor([25, 17])
    mask = torch.arange(25) < lengths[:, None]
    expected = theirs(hidden.clone()).last_hidden_state
    torch.testing.assert_close(
        encoder.conformer(hidden)[-1], expected, rtol=1e-5, atol=1e-5
    )
    # Theirs masks the attention only, so compare one layer's attention.
    rotation = [theirs.embed_positions(hidden)[i, :, 0, 0] for i in range(2)]
    ours = encoder.conformer.layers[0].self_attn
    assert isinstance(ours, RotarySelfAttention)
    masked = ours(hidden, rotation, mask)
    torch.testing.assert_close(
        masked[1, :17],
        ours(hidden[1:, :17], [part[:17] for part in rotation])[0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_gradient_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    sizes = {"num_heads": 4, "ffn_width": 64, "conv_channels": 4, "dropout": 0.1}
    plain, saving = (
        MuQEncoder(32, 2, gradient_checkpointing=recomputes, **sizes).train()
        for recomputes in (False, True)
    )
    saving.load_state_dict(plain.state_dict())
    wavs, lens, held = torch.randn(2, 24000), torch.tensor([1.0, 0.6]), []
    for encoder in (plain, saving):
        torch.manual_seed(1)
        kept = []
        for _ in range(2):  # two micro-batches
            with torch.autograd.graph.saved_tensors_hooks(
                lambda tensor, kept=kept: kept.append(tensor.nbytes) or tensor,
                lambda tensor: tensor,
            ):
                out = encoder(wavs, lens).last_hidden_state
            held.append(sum(kept))
            out.square().sum().backward()
    assert held[2] < held[0] / 3
    expected = {name: p.grad for name, p in plain.named_parameters()}
    found = {name: p.grad for name, p in saving.named_parameters()}
    torch.testing.assert_close(found, expected)
    buffers = dict(saving.named_buffers())
    for norm in ("conv.conv.0.bn1", "conformer.layers.1.conv_module.batch_norm"):
        assert buffers[f"{norm}.num_batches_tracked"] == 2
    torch.testing.assert_close(buffers, dict(plain.named_buffers()), rtol=0, atol=0)
    assert saving.conformer.layers[0].conv_module.batch_norm.momentum == 0.1


def test_every_parameter_gets_a_gradient(encoder):
    encoder = copy.deepcopy(encoder).train()
    encoder(torch.randn(2, 24000)).last_hidden_state.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_config_builds_the_same_encoder(encoder):
    again = MuQEncoder(**encoder.config)
    again.load_state_dict(encoder.state_dict())
    wavs = torch.randn(1, 24000)
    assert torch.equal(
        again.eval()(wavs).last_hidden_state, encoder(wavs).last_hidden_state
    )


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of twice the number of heads"):
        MuQEncoder(width=30, num_heads=4)
    with pytest.raises(ValueError, match="odd"):
        Conformer(32, 1, 4, 64, conv_kernel_size=30)
