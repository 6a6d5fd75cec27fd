"""The drawing of the U: what it reads off from the shapes."""

import pytest

from diffusion_lessons.classroom.network import bridges, u_shape

LAYERS = [("x_t picture", (1, 28, 28)), ("first Conv2d", (8, 14, 14)), ("down 0 ResBlock", (8, 14, 14)),
          ("down 1 Conv2d", (16, 7, 7)), ("down 2 ResBlock", (16, 7, 7)), ("middle 0 ResBlock", (16, 7, 7)),
          ("up 0 ResBlock", (16, 7, 7)), ("up 1 Sequential", (8, 14, 14)), ("up 2 ResBlock", (8, 14, 14))]  # fmt: skip


def test_the_last_block_down_is_bridged_to_the_first_block_up():
    names = [name for name, _ in LAYERS]
    assert bridges(LAYERS, names) == [("down 2 ResBlock", "up 0 ResBlock"), ("down 0 ResBlock", "up 2 ResBlock")]


def test_boxes_are_as_tall_as_the_maps_and_lower_the_smaller_they_are():
    boxes = u_shape(LAYERS).axes[0].patches[: len(LAYERS)]
    heights, middles = [box.get_height() for box in boxes], [box.get_y() + box.get_height() / 2 for box in boxes]
    assert heights[0] == pytest.approx(4 * heights[3])
    assert middles[0] > middles[1] == middles[8] > middles[3]
    assert boxes[3].get_width() > boxes[1].get_width()


def test_no_layer_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="hooks"):
        u_shape([])
