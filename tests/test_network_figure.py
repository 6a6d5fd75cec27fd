"""The drawing of the U: what it reads off from the shapes."""

import pytest
import torch

from diffusion_lessons.classroom.network import named_layers, skip_pairs, u_shape
from diffusion_lessons.models.text import CrossAttention
from diffusion_lessons.models.unet import UNet

LAYERS = [("x_t picture", (1, 28, 28)), ("conv_in Conv2d", (8, 14, 14)), ("down 0 ResBlock", (8, 14, 14)),
          ("down 1 Conv2d", (16, 7, 7)), ("down 2 ResBlock", (16, 7, 7)), ("mid 0 ResBlock", (16, 7, 7)),
          ("up 0 ResBlock", (16, 7, 7)), ("up 1 Sequential", (8, 14, 14)), ("up 2 ResBlock", (8, 14, 14))]  # fmt: skip


def test_the_last_block_down_is_connected_to_the_first_block_up():
    names = [name for name, _ in LAYERS]
    assert skip_pairs(LAYERS, names) == [("down 2 ResBlock", "up 0 ResBlock"), ("down 0 ResBlock", "up 2 ResBlock")]


def test_boxes_are_as_tall_as_the_maps_and_lower_the_smaller_they_are():
    boxes = u_shape(LAYERS).axes[0].patches[: len(LAYERS)]
    heights, middles = [box.get_height() for box in boxes], [box.get_y() + box.get_height() / 2 for box in boxes]
    assert heights[0] == pytest.approx(4 * heights[3])
    assert middles[0] > middles[1] == middles[8] > middles[3]
    assert boxes[3].get_width() > boxes[1].get_width()


def test_no_layer_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="hooks"):
        u_shape([])


@torch.no_grad()
def test_the_layers_of_a_network_are_listed_in_the_order_in_which_they_run():
    text = dict(vocab_size=12, length=8, width=32, layers=1, heads=2)
    for settings in (dict(classes=3), dict(text=text, blocks=2, attention=False, channels=(8, 16, 32))):
        net, ran = UNet(**{"channels": (8, 16), "blocks": 1, **settings}), []
        layers = named_layers(net)
        for name, layer in layers.items():
            layer.register_forward_hook(lambda layer, given, made, name=name, ran=ran: ran.append(name))
        net(torch.zeros(1, 1, 16, 16), torch.tensor([500]))
        assert ran == list(layers)
        assert {id(w) for w in net.parameters()} - {id(w) for layer in layers.values() for w in layer.parameters()} == {
            id(w) for part in (net.time_mlp, net.class_embedding, net.text_encoder, net.text_proj) if part is not None
            for w in part.parameters()}
        assert any(isinstance(layer, CrossAttention) for layer in layers.values()) == ("text" in settings)
