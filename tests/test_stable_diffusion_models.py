"""Our U-Net, VAE and text encoder against diffusers' and transformers', with the same random weights."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion_lessons.models.stable_diffusion.checkpoint import load_model, modern_name, save_model
from diffusion_lessons.models.stable_diffusion.layers import Attention
from diffusion_lessons.models.stable_diffusion.text_encoder import TextEncoder
from diffusion_lessons.models.stable_diffusion.unet import UNet
from diffusion_lessons.models.stable_diffusion.vae import VAE, Gaussian
from diffusion_lessons.training.latent import TEXT_CONFIG, UNET_CONFIG, VAE_CONFIG

FULL = {name: json.loads((Path(__file__).parent / "data" / "stable_diffusion" / f"{name}.json").read_text())
        for name in ("sd15", "sd_turbo")}
TINY_TEXT = dict(vocab_size=60, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
                 max_position_embeddings=12, eos_token_id=59, bos_token_id=58, pad_token_id=59)
# The real ones, with a tenth of their channels; heads, groups and projections as they are
UNETS = {
    "sd15": {**FULL["sd15"]["unet"], "block_out_channels": [32, 64, 128, 128], "cross_attention_dim": 48},
    "sd_turbo": {**FULL["sd_turbo"]["unet"], "block_out_channels": [40, 80, 160, 160], "cross_attention_dim": 48,
                 "norm_num_groups": 8},
    "critters": UNET_CONFIG,
}
VAES = {
    "sd15": {**FULL["sd15"]["vae"], "block_out_channels": [32, 64, 64, 64]},
    "sd_turbo": {**FULL["sd_turbo"]["vae"], "block_out_channels": [32, 32, 64, 64]},
    "critters": VAE_CONFIG,
}
TEXTS = {
    "sd15": {**FULL["sd15"]["text_encoder"], **TINY_TEXT},
    "sd_turbo": {**FULL["sd_turbo"]["text_encoder"], **TINY_TEXT, "num_hidden_layers": 3},
    "old eos": {**FULL["sd15"]["text_encoder"], **TINY_TEXT, "eos_token_id": 2},
    "critters": {**TEXT_CONFIG, "vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58, "pad_token_id": 59},
}
names = pytest.mark.parametrize("name", UNETS)


def assert_same(found, wanted):
    """Equal to 1e-5 of the largest value: float32 rounds by a part of it, and how much depends on the machine."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1, wanted.abs().max().item()))


def bare(config):
    """A config without the names that only the published libraries want."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def shaken(theirs):
    """Their network with weights that leave no part of it idle: norms and biases too."""
    g = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=g)
    return theirs.eval().requires_grad_(False)


def their_unet(config):
    torch.manual_seed(0)
    return shaken(UNet2DConditionModel(**bare(config)))


def their_vae(config):
    torch.manual_seed(0)
    return shaken(AutoencoderKL(**bare(config)))


def their_text_encoder(config):
    torch.manual_seed(0)
    return shaken(CLIPTextModel(CLIPTextConfig(**config)))


def both_ways(kind, theirs, config, folder):
    """Our network with their weights: by load_state_dict, and from the folder that their library writes."""
    ours = kind(**config)
    ours.load_state_dict({modern_name(name): x for name, x in theirs.state_dict().items()}, strict=True)
    theirs.save_pretrained(folder)
    loaded = load_model(kind, folder)
    for name, x in ours.state_dict().items():
        assert torch.equal(x, loaded.state_dict()[name]), name
    return ours.eval().requires_grad_(False), loaded


@names
def test_the_unet_is_diffusers_unet(name, g, tmp_path):
    config = UNETS[name]
    theirs = their_unet(config)
    x = torch.randn(3, 4, 16, 8, generator=g)
    text = torch.randn(3, 7, config["cross_attention_dim"], generator=g)
    t = torch.tensor([0, 1, 999])
    wanted = theirs(x, t, text).sample
    assert wanted.std() > 0.1
    for ours in both_ways(UNet, theirs, config, tmp_path):
        assert_same(ours(x, t, text), wanted)


@pytest.mark.parametrize("name", VAES)
def test_the_vae_is_diffusers_vae(name, g, tmp_path):
    theirs = their_vae(VAES[name])
    x = torch.rand(2, 3, 64, 32, generator=g) * 2 - 1
    gaussian = theirs.encode(x).latent_dist
    z = torch.randn(gaussian.mean.shape, generator=g)
    wanted = theirs.decode(z).sample
    assert wanted.std() > 0.1
    for ours in both_ways(VAE, theirs, VAES[name], tmp_path):
        found = ours.encode(x)
        assert_same(found.mean, gaussian.mean)
        assert_same(found.logvar, gaussian.logvar)
        torch.testing.assert_close(found.kl().sum((1, 2, 3)), gaussian.kl(), rtol=1e-5, atol=0)
        assert_same(found.sample(z), gaussian.mean + gaussian.std * z)
        assert_same(ours.decode(z), wanted)
        assert ours.scaling_factor == theirs.config.scaling_factor
        assert x.shape[-1] == ours.factor * z.shape[-1]


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_encoder_is_transformers_clip(name, g, tmp_path):
    config = TEXTS[name]
    theirs = their_text_encoder(config)
    tokens = torch.randint(58, (3, 12), generator=g)
    tokens[:, 0] = 58
    tokens[0, 4:], tokens[1, 11], tokens[2, 7] = 59, 59, 59    # EOS: early and then as padding, last, and once inside
    wanted = theirs(tokens)
    for ours in both_ways(TextEncoder, theirs, config, tmp_path):
        found = ours(tokens)
        assert_same(found.hidden_states, wanted.last_hidden_state)
        assert_same(found.pooled, wanted.pooler_output)


def test_the_old_names_of_published_files_are_read(tmp_path):
    """The VAE of Stable Diffusion 1.5 calls its attention query, key, value, proj_attn; text encoders have a buffer."""
    theirs = their_vae(VAES["sd15"])
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    modern, old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}, {}
    for name, x in load_file(file).items():
        for new, before in modern.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        old[name] = x
    assert sum("proj_attn" in name for name in old) == 4
    save_file(old, file)
    ours, again = load_model(VAE, tmp_path), AutoencoderKL.from_pretrained(tmp_path)
    z = torch.randn(1, 4, 4, 4)
    assert_same(ours.decode(z), again.eval().decode(z).sample)

    encoder = TextEncoder(**TEXTS["sd15"])
    save_model(encoder, tmp_path / "text", "CLIPTextModel", torch.float32)
    tensors = load_file(tmp_path / "text" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in tensors)
    tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    save_file(tensors, tmp_path / "text" / "model.safetensors")
    loaded = load_model(TextEncoder, tmp_path / "text")
    tokens = torch.tensor([[58, 3, 59]])
    assert torch.equal(loaded(tokens).pooled, encoder(tokens).pooled)


@pytest.mark.parametrize("name", FULL)
def test_full_size_keys_and_shapes_agree(name):
    """On the meta device, so that nothing is computed: all parameters of the real ones, by name and shape."""
    def shapes(network):
        return {modern_name(key): tuple(x.shape) for key, x in network.state_dict().items()}

    config = FULL[name]
    with torch.device("meta"):
        pairs = {
            "unet": (UNet(**config["unet"]), UNet2DConditionModel(**bare(config["unet"]))),
            "vae": (VAE(**config["vae"]), AutoencoderKL(**bare(config["vae"]))),
            "text_encoder": (TextEncoder(**config["text_encoder"]),
                             CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))),
        }
    for part, (ours, theirs) in pairs.items():
        assert shapes(ours) == shapes(theirs), part
    count = {part: sum(p.numel() for p in ours.parameters()) for part, (ours, _) in pairs.items()}
    assert count == config["parameters"]


@pytest.mark.long
def test_the_full_size_unet_once():
    """860 million random parameters on 32x32 latents; one network after the other, as both do not fit into 8 GiB."""
    config, g = FULL["sd15"]["unet"], torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 32, 32, generator=g), torch.randn(1, 77, 768, generator=g)
    t = torch.tensor([601])
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**bare(config)).eval()
    weights = theirs.state_dict()
    with torch.no_grad():
        wanted = theirs(x, t, text).sample
    del theirs
    with torch.device("meta"):
        ours = UNet(**config)
    ours.load_state_dict(weights, strict=True, assign=True)
    with torch.no_grad():
        found = ours(x, t, text)
    assert wanted.std() > 0.01
    assert_same(found, wanted)


@pytest.mark.parametrize("change, says", [
    ({"act_fn": "gelu"}, "act_fn='gelu'"),
    ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
    ({"transformer_layers_per_block": [1, 2, 10]}, "transformer_layers_per_block"),
    ({"attention_head_dim": 7}, "number of heads"),
    ({"up_block_types": ["UpBlock2D"] * 4}, "mirror"),
    ({"down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D"),
])
def test_what_the_unet_does_not_do_is_refused_by_name(change, says):
    with torch.device("meta"), pytest.raises(ValueError, match=says.replace("[", r"\[")):
        UNet(**{**FULL["sd15"]["unet"], **change})


def test_other_configs_and_sides_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="hidden_act 'relu'"):
        TextEncoder(**{**TEXTS["sd15"], "hidden_act": "relu"})
    with pytest.raises(ValueError, match="does not say vocab_size"):
        TextEncoder(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(ValueError, match="down_block_types.*DownEncoderBlock2D"):
        VAE(**{**VAES["sd15"], "down_block_types": ["AttnDownEncoderBlock2D"] * 4})
    with pytest.raises(ValueError, match="shift_factor"):
        VAE(**{**VAES["sd15"], "shift_factor": 0.1})
    with pytest.raises(ValueError, match="divisible by 4"):
        VAE(**VAE_CONFIG).encode(torch.zeros(1, 3, 30, 32))
    width = UNET_CONFIG["cross_attention_dim"]
    with pytest.raises(ValueError, match="divisible"):
        UNet(**UNET_CONFIG)(torch.zeros(1, 4, 15, 16), torch.tensor([1]), torch.zeros(1, 3, width))
    with pytest.raises(ValueError, match="13 tokens.*12"):
        TextEncoder(**TEXTS["sd15"])(torch.zeros(1, 13, dtype=torch.int64))


def test_pickles_and_weights_that_do_not_fit_are_refused(tmp_path):
    save_model(TextEncoder(**TEXTS["sd15"]), tmp_path, "CLIPTextModel")
    (tmp_path / "model.safetensors").rename(tmp_path / "model.bin")
    with pytest.raises(ValueError, match="pickle.*model.bin.*safetensors"):
        load_model(TextEncoder, tmp_path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="no .safetensors"):
        load_model(TextEncoder, tmp_path)
    save_model(TextEncoder(**{**TEXTS["sd15"], "num_hidden_layers": 3}), tmp_path, "CLIPTextModel")
    (tmp_path / "config.json").write_text(json.dumps(TEXTS["sd15"]))
    with pytest.raises(ValueError, match="(?s)does not fit its config.json.*layers.2"):
        load_model(TextEncoder, tmp_path)
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_model(VAE, tmp_path / "nowhere")


def test_attention_is_the_formula(g):
    """softmax(q k^T / sqrt(d)) v, written out for two heads."""
    attention = Attention(8, heads=2, context_width=6)
    x, context = torch.randn(2, 5, 8, generator=g), torch.randn(2, 3, 6, generator=g)
    q, k, v = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    heads = [torch.softmax(q[..., s] @ k[..., s].transpose(1, 2) / 2, -1) @ v[..., s] for s in (slice(4), slice(4, 8))]
    torch.testing.assert_close(attention(x, context), attention.to_out(torch.cat(heads, -1)))


def test_kl_of_a_standard_gaussian_is_zero_and_sampling_uses_the_std():
    zero = torch.zeros(1, 1, 2, 2)
    assert Gaussian(zero, zero).kl().abs().max() == 0
    assert torch.equal(Gaussian(zero + 3, zero + 2 * torch.tensor(5.0).log()).sample(zero + 1), zero + 8)
