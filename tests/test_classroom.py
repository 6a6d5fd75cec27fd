"""What notebooks show: figures, the film player, the sliders."""

import asyncio
import base64
import html
import io
import itertools
import re
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import ipywidgets
import matplotlib
import numpy as np
import pytest
import small_widgets
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from PIL import Image
from widget_mover import live_widgets

from diffusion_lessons import classroom, schedules
from diffusion_lessons.classroom import (
    animate,
    bars,
    brush,
    curve,
    curves,
    denoise_slider,
    film_strip,
    heat_table,
    latent_lab,
    loop_player,
    points,
    prompt_lab,
    sampler_bench,
    schedule_explorer,
    show_pictures,
    walk_slider,
)
from diffusion_lessons.classroom.instant import Histogram, picture_bytes
from diffusion_lessons.classroom.network import u_shape
from diffusion_lessons.classroom.style import LINES, Drawing, contrast, legible, png_of
from diffusion_lessons.classroom.widgets import Picture
from diffusion_lessons.forward import add_noise, from_x0
from diffusion_lessons.guidance import CFGDenoiser
from diffusion_lessons.ideal import IdealDenoiser
from diffusion_lessons.images import tile
from diffusion_lessons.models.gan import DigitGenerator, latent_sphere
from diffusion_lessons.pipelines import text_to_image
from diffusion_lessons.samplers import PerSampleNoise, SamplerSettings, SamplingLoop, run, sample
from diffusion_lessons.training import recipes

# Red, green and blue as people without the green (deuteranopia) or red (protanopia) receptor see them, in linear light
# (Vienot, Brettel & Mollon 1999).
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
}


def lab(colour, blindness):
    """A colour as CIE L*a*b*, where a distance of about 2 can just be seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(BLINDNESS[blindness] @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1.0, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_stay_apart_for_the_colour_blind(blindness):
    distances = {(a, b): np.linalg.norm(lab(classroom.PALETTE[a], blindness) - lab(classroom.PALETTE[b], blindness))
                 for a, b in itertools.combinations(classroom.PALETTE, 2)}
    assert min(distances.values()) > 15, min(distances, key=distances.get)


def test_lines_differ_without_colour_too():
    dashes, markers = [str(d) for _, d, _ in LINES], [m for _, _, m in LINES]
    assert len(set(dashes)) == len(set(markers)) == len(LINES)
    assert all(np.linalg.norm(lab(c, "none") - lab("#ffffff", "none")) > 30 for c, _, _ in LINES)


def pictures_in(figure):
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]


def test_minus_one_is_black_and_plus_one_white():
    x = torch.stack([torch.full((1, 4, 4), v) for v in (-1.0, 0.0, 1.0, -7.0, 7.0)])
    values = [np.unique(picture).tolist() for picture in pictures_in(show_pictures(x))]
    assert values == [[0], [128], [255], [0], [255]]
    wide = [int(picture.mean()) for picture in pictures_in(show_pictures(x, white=2.0))]
    assert wide == [64, 128, 191, 0, 255]


def test_colours_and_bytes_are_shown_as_they_are():
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 5, 4)
    assert pictures_in(show_pictures(red))[0].tolist() == [[[255, 0, 0]] * 4] * 5
    counted = torch.arange(20, dtype=torch.uint8).reshape(1, 1, 4, 5)
    assert pictures_in(show_pictures(counted))[0][..., 0].tolist() == counted[0, 0].tolist()


@pytest.mark.parametrize("scale", [1, 3])
def test_each_pixel_becomes_a_sharp_square(scale):
    x = torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    buffer = io.BytesIO()
    figure = show_pictures(x, scale=scale)
    figure.savefig(buffer, format="png", dpi=100)
    drawn = np.asarray(Image.open(buffer).convert("L"))
    wanted = pictures_in(figure)[0][..., 0].repeat(scale, 0).repeat(scale, 1)
    found = [(i, j) for i in range(drawn.shape[0] - wanted.shape[0] + 1)
             for j in range(drawn.shape[1] - wanted.shape[1] + 1)
             if (drawn[i:i + wanted.shape[0], j:j + wanted.shape[1]] == wanted).all()]
    assert len(found) == 1


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in ax.texts if t.get_text()]


def test_words_stand_with_their_pictures():
    x = torch.zeros(6, 1, 8, 8)
    figure = show_pictures(x, labels=list("abcdef"), columns=4, title="six")
    assert texts(figure) == ["six", *"abcdef"]
    figure = film_strip({"above": x[:2], "below": x[2:4]}, titles=["t = 0", "t = 1000"])
    assert sorted(texts(figure)) == ["above", "below", "t = 0", "t = 1000"]
    boxes = [image.get_extent() for image in figure.axes[0].images]
    assert boxes[0][0] == boxes[2][0] < boxes[1][0]      # columns
    assert boxes[0][2] == boxes[1][2] < boxes[2][3]      # rows


def test_a_small_picture_in_a_strip_is_as_large_as_its_neighbour():
    small = torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]])
    large, shown = film_strip({"large": [torch.zeros(1, 8, 8)], "small": [small]}).axes[0].images
    corners = shown.get_array()[::4, ::4, 0]
    assert [corners[0, 0], corners[0, 1]] == [corners[1, 1], corners[1, 0]] == [0, 255]
    assert (shown.get_array()[:4, 4:, 0] == 255).all()
    (left, right, bottom, top), (a, b, c, d) = large.get_extent(), shown.get_extent()
    assert (left, right, bottom - top) == (a, b, c - d)


def test_long_words_do_not_run_into_each_other():
    names = ["a long title", "another long title", "$\\hat{x}_0$ at t = 1000"]
    figure = show_pictures(torch.zeros(3, 1, 4, 4), titles=names, scale=2)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for ax in figure.axes for t in ax.texts]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("wrong", [torch.zeros(2, 2, 5, 5), torch.zeros(0, 1, 5, 5)])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="picture"):
        show_pictures(wrong)


def test_labels_of_two_lines_get_the_room_of_two():
    x = torch.zeros(4, 1, 20, 20)
    one, two = (show_pictures(x, labels=["a" + more] * 4, columns=2).get_figheight() for more in ("", "\nb"))
    bare = show_pictures(x, columns=2).get_figheight()
    assert two - one == pytest.approx(one - bare)      # a second line for each of the two rows
    assert one > bare


def test_curves_draw_the_mean_and_the_reach_of_the_seeds():
    seeds = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 11.0]])
    figure = curves([1, 2, 3], {"a": seeds, "b": [0, 0, 0]})
    ax = figure.axes[0]
    assert ax.lines[0].get_ydata().tolist() == [2, 3, 7]
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1, 11)
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    dots = curves([1, 2, 3], {"a": seeds}, spread="points").axes[0]
    assert sorted(v for line in dots.lines[1:] for v in line.get_ydata()) == sorted(seeds.ravel())


def test_names_stand_at_the_lines_ends_or_in_a_legend():
    apart = curves([0, 1], {"up": [0, 1], "down": [1, 0]}).axes[0]
    assert apart.get_legend() is None
    assert {t.get_text(): t.get_color() for t in apart.texts} == {name: legible(LINES[k][0]) for k, name in
                                                                   enumerate(["up", "down"])}
    together = curves([0, 1], {"up": [0, 1], "down": [2, 1]}).axes[0]
    assert [t.get_text() for t in together.get_legend().get_texts()] == ["up", "down"]


def test_words_in_figures_can_be_read():
    many = curves([0, 1], {f"line {k}": [0, k] for k in range(len(LINES))}).axes[0]
    assert len(many.texts) == len(LINES)
    layers = [("in", (8, 28, 28)), ("down ResBlock", (16, 28, 28)), ("up ResBlock", (16, 28, 28))]
    shape = u_shape(layers).axes[0]
    assert all(contrast(text.get_color(), "white") >= 4.5 for text in [*many.texts, *shape.texts])
    table = heat_table(np.linspace(0, 1, 40)[None], ["r"], range(40)).axes[0]
    paint = table.images[0].get_array()[0, :, :3]
    assert all(contrast(text.get_color(), cell) >= 4.5 for text, cell in zip(table.texts, paint))
    assert contrast("#767676", "white") == pytest.approx(4.54, abs=0.01)      # WCAG's own examples
    assert contrast("black", "white") == pytest.approx(21)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="shape"):
        curves([1, 2, 3], {"a": [1, 2]})
    with pytest.raises(ValueError, match="finite"):
        curve([1, 2], [float("nan")] * 2)
    with pytest.raises(ValueError, match="table"):
        heat_table(np.zeros((2, 3)), ["a"], ["b"])
    with pytest.raises(ValueError, match="points"):
        points([torch.zeros(5, 3)])


def test_points_share_one_scale():
    figure = points({"small": torch.rand(9, 2), "large": 10 * torch.rand(9, 2)})
    a, b = figure.axes
    assert (a.get_xlim(), a.get_ylim()) == (b.get_xlim(), b.get_ylim())
    assert a.get_aspect() == 1
    assert np.ptp(a.get_xlim()) == pytest.approx(np.ptp(a.get_ylim()))


def test_bars_and_tables_say_their_numbers():
    figure = bars({"one": {"a": [1.0, 3.0], "b": 1.0}, "two": {"a": 0.5, "b": 4.0}}, fmt="{:.1f}")
    assert texts(figure) == ["2.0", "0.5", "1.0", "4.0"]
    table = heat_table([[0.1, 0.9], [0.5, 0.4]], ["r", "s"], ["c", "d"], fmt="{:.1%}", best="max")
    assert texts(table) == ["10.0%", "90.0%", "50.0%", "40.0%"]
    assert table.axes[0].patches[0].get_xy() == pytest.approx((0.52, -0.46))
    assert "± " in texts(heat_table(np.ones((1, 1, 3)), ["r"], ["c"]))[0]


def test_a_figure_shows_itself_and_leaves_the_learners_settings_alone():
    before = dict(matplotlib.rcParams)
    figure = curve([1, 2], [3, 4], "x", "y")
    assert dict(matplotlib.rcParams) == before
    assert isinstance(figure, Drawing)
    data = DisplayFormatter().format(figure)[0]
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size[0] > 700
    assert png_of(figure)[:4] == b"\x89PNG"


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(image):
    head, data = image["src"].split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_player_holds_every_frame_and_asks_nobody_for_anything():
    frames = [torch.full((1, 6, 5), v) for v in (-1.0, 0.0, 1.0)]
    film = animate(frames, titles=["t = 2", "t < 2", "t = 0"], start=-1)
    page = Page(film.data)
    images = page.all("img")
    assert [decoded(image).mean() for image in images] == [0, 128, 255]
    assert [image["alt"] for image in images] == ["t = 2", "t < 2", "t = 0"]
    assert ["display:block" in image["style"] for image in images] == [False, False, True]
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|\bid=", re.sub(r"base64,[^\"]*", "", film.data))
    slider = page.all("input")[0]
    assert (slider["min"], slider["max"], slider["value"], slider["aria-valuetext"]) == ("0", "2", "2", "t = 0")
    assert film.data == animate(frames, titles=["t = 2", "t < 2", "t = 0"], start=-1).data


def test_films_side_by_side_and_of_figures():
    x = torch.zeros(4, 1, 6, 5)
    page = Page(animate({"left": [x, x], "right": [x[0], x[0]]}).data)
    assert [image["alt"] for image in page.all("img")] == ["left: 1 / 2", "left: 2 / 2", "right: 1 / 2", "right: 2 / 2"]
    assert [image["data-title"] for image in page.all("img")] == ["1 / 2", "2 / 2"] * 2
    assert [decoded(image).shape[:2] for image in page.all("img")] == [(13, 11)] * 2 + [(6, 5)] * 2
    page = Page(animate([curve([1, 2], [3, k]) for k in range(2)]).data)
    assert [decoded(image).shape[:2] for image in page.all("img")] == [(450, 900)] * 2
    with pytest.raises(ValueError, match="same number of frames"):
        animate({"left": [x], "right": [x, x]})
    with pytest.raises(ValueError, match="titles"):
        animate([x], titles=["a", "b"])


def test_tiles_keep_their_order():
    batch = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    page = tile(batch)[..., 0]
    assert page.shape == (5, 5)
    assert (page[0, 0], page[0, 3], page[3, 0]) == (0, 128, 255)
    assert (page[2] == 255).all()
    assert (page[:, 2] == 255).all()


def parts(widget, kind):
    found = [widget] if isinstance(widget, kind) else []
    return found + [part for child in getattr(widget, "children", ()) for part in parts(child, kind)]


def words_of(widget):
    """The line below a widget's pictures; the last of its children is only a script."""
    return widget.children[-2].value


def moves_and_shows(widget, changing):
    """Move the slider to both ends; the pictures named by `changing` must change each time. Returns seconds a move."""
    slider, = parts(widget, ipywidgets.IntSlider)
    images = [parts(widget, Picture)[k] for k in changing]
    seen, slowest = [[image.png for image in images]], 0
    for value in (slider.min, slider.max):
        start = time.perf_counter()
        slider.value = value
        slowest = max(slowest, time.perf_counter() - start)
        seen.append([image.png for image in images])
    for before, after in itertools.pairwise(seen):
        assert all(a != b for a, b in zip(before, after))
    for image in parts(widget, Picture):
        assert Image.open(io.BytesIO(image.png)).size[0] >= 200
    return slowest


@pytest.fixture
def digits():
    return torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_schedule_explorer_moves(digits):
    widget = schedule_explorer(digits[0], lengths=(100, 20))
    assert moves_and_shows(widget, changing=[1, 2, 3]) < 1     # seconds; usually a hundredth of one
    menu, length = parts(widget, ipywidgets.Dropdown)
    slider, = parts(widget, ipywidgets.IntSlider)
    clean, noisy, _, _ = parts(widget, Picture)
    slider.value = 50
    curves_seen = set()
    for name in menu.options:
        menu.value = name
        curves_seen.add(parts(widget, Picture)[2].png)
    assert len(curves_seen) == len(menu.options) == 4
    slider.value = 0
    assert noisy.png == clean.png
    slider.value = 60
    length.value = 20
    assert (slider.value, slider.max) == (12, 20)               # the same share of the way
    slider.value = 20
    length.value = 100
    assert (slider.value, slider.max) == (100, 100)


def test_a_figure_tells_in_words_what_stands_in_it():
    def alt(figure):
        data, about = DisplayFormatter().format(figure)
        assert f'<img alt="{html.escape(about["image/png"]["alt"])}" src="data:image/png;base64,' in data["text/html"]
        return about["image/png"]["alt"]

    said = alt(curves([1, 2], {"eps": [1, 2], "x0": [2, 3]}, "t", "error", 'Who errs "more"'))
    assert all(word in said for word in ('Who errs "more"', "across: t", "up: error", "eps", "x0"))
    assert "x_t, t = 1, t = 2" in alt(film_strip({"$x_t$": [torch.zeros(1, 4, 4)] * 2}, titles=["t = 1", "t = 2"]))
    said = alt(heat_table(np.eye(2), ["honest", "blind"], ["loss", "home"], title="Told or not"))
    assert all(word in said for word in ("across: loss, home", "up: honest, blind", "text: "))


def test_the_histogram_shows_how_often_a_value_occurs():
    def height(x, value):
        histogram = Histogram()
        column, floor = histogram.axes.at(value, 0)
        picture = Image.open(io.BytesIO(histogram.plot(x))).convert("RGB")
        before = histogram.axes.picture
        changed = [y for y in range(picture.height)
                   if picture.getpixel((column, y)) != before.getpixel((column, y))]
        return (floor - min(changed)) / (floor - histogram.axes.at(value, 1)[1]) if changed else 0

    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for value in (-1.1, 0.1, 0.9):
        assert abs(height(x, value) - torch.distributions.Normal(0, 1).log_prob(torch.tensor(value)).exp()) < 0.03
    assert height(torch.ones(10), -1.1) == 0
    assert height(torch.full((10,), 0.1), 0.1) > 1.4            # cut at the top


def test_the_denoise_slider_moves(digits):
    schedule = schedules.linear(100)
    widget = denoise_slider(digits[0], IdealDenoiser(digits, schedule))
    slider, = parts(widget, ipywidgets.IntSlider)
    slider.value = 60
    assert moves_and_shows(widget, changing=[1]) < 1
    slider.value = 1
    clean, _, estimate, error = (image.png for image in parts(widget, Picture))
    assert estimate == clean
    assert np.asarray(Image.open(io.BytesIO(error))).max() <= 1


def test_the_loop_player_shows_the_recorded_steps(digits):
    schedule = schedules.linear(100)
    noise = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    steps = list(sample(IdealDenoiser(digits, schedule), noise, schedule, steps=10))
    widget = loop_player(steps)
    slider, = parts(widget, ipywidgets.IntSlider)
    assert (slider.min, slider.max) == (1, 10)
    slider.value = 5
    assert moves_and_shows(widget, changing=[0, 3]) < 1
    assert "to <b>0</b>" in words_of(widget)
    with pytest.raises(ValueError, match="no step"):
        loop_player([])


def test_the_walk_slider_walks_and_says_where():
    torch.manual_seed(0)
    generator = DigitGenerator(latent=8, width=8).eval()
    widget = walk_slider(generator, step=60)
    longitude, latitude = parts(widget, ipywidgets.IntSlider)
    here, atlas = parts(widget, Picture)
    start = here.png, atlas.png
    for slider, value in ((longitude, 90), (latitude, -45)):
        slider.value = value
        assert here.png != start[0]
        assert atlas.png != start[1]
        start = here.png, atlas.png
    shown = np.asarray(Image.open(io.BytesIO(here.png)).convert("L"))
    with torch.no_grad():
        wanted = generator(latent_sphere(8, torch.tensor([90.0]), torch.tensor([-45.0])))
    assert (shown == np.asarray(Image.open(io.BytesIO(picture_bytes(wanted))).convert("L"))).all()
    latitude.value = 90                                         # at the pole every longitude is the same point
    pole = here.png
    longitude.value = 200
    close = [np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int) for png in (pole, here.png)]
    assert abs(close[0] - close[1]).max() <= 2


@pytest.fixture
def reader():
    """The network, and how often it has been asked."""
    denoiser, passes = small_widgets.reader(), []
    denoiser.register_forward_hook(lambda *_: passes.append(1))
    return denoiser, passes


def test_the_latent_lab_follows_the_loop():
    pipeline, passes = small_widgets.latent_pipeline(), []
    pipeline.unet.register_forward_hook(lambda *_: passes.append(1))
    widget = latent_lab(pipeline, "a frog", w=3.0, steps=4)
    latents, estimate, result = parts(widget, Picture)
    (prompt, away), (strength,) = parts(widget, ipywidgets.Text), parts(widget, ipywidgets.FloatSlider)
    seed, steps, position = parts(widget, ipywidgets.IntSlider)
    assert (position.value, position.max) == (4, 4)
    assert estimate.png == result.png == picture_bytes(pipeline("a frog", guidance_scale=3.0, steps=4))
    drawn, end = len(passes), result.png
    assert drawn == 2 * 4                        # four steps, and the same for the comparison
    taken = list(pipeline.sample("a frog", guidance_scale=3.0, steps=4))
    passes.clear()
    position.value = 2                           # no new pass: the loop is kept
    assert not passes
    assert result.png == end
    assert estimate.png == picture_bytes(pipeline.decode(taken[1].x0_hat)) != end
    assert latents.png == picture_bytes(taken[1].x_t[0, :, None] / 3)
    seen = {result.png}
    for mover, value in ((prompt, "an owl"), (away, "a cat"), (strength, 8.0), (seed, 3), (steps, 2)):
        mover.value = value
        seen.add(result.png)
    assert len(seen) == 6
    assert (position.value, position.max) == (2, 2)
    assert result.png == picture_bytes(pipeline("an owl", negative="a cat", guidance_scale=8.0, seed=3, steps=2))


def test_the_prompt_lab_shows_the_picture_of_its_prompt(reader):
    denoiser, passes = reader
    tokenizer = recipes.tokenizer()
    widget = prompt_lab(denoiser, tokenizer, w=2.0, steps=2)
    menus, (image, looked) = parts(widget, ipywidgets.Dropdown), parts(widget, Picture)
    (prompt, away), (strength,) = parts(widget, ipywidgets.Text), parts(widget, ipywidgets.FloatSlider)
    seed, steps = parts(widget, ipywidgets.IntSlider)
    assert menus[-1].value == "frog"
    assert prompt.value == "a green frog on stilts in the meadow"
    x = text_to_image.sample_images(denoiser, tokenizer(prompt.value), (3, 32, 32), w=2.0,
                                    sampler=SamplerSettings(steps=2))
    assert image.png == picture_bytes(x)
    seen = {image.png}
    for mover, value in ((menus[0], "owl"), (prompt, "a red cat"), (away, "a frog"), (strength, 8.0), (seed, 3),
                         (steps, 3)):
        mover.value = value
        seen.add(image.png)
    assert len(seen) == 7
    steered = CFGDenoiser(denoiser, tokenizer("a red cat"), 8.0, negative=tokenizer("a frog"))
    x = run(sample(steered, PerSampleNoise(3, 1)((3, 32, 32)), denoiser.schedule, 3, clip=True))
    assert image.png == picture_bytes(x)
    drawn, maps = len(passes), set()
    for word in ("a", "red", "cat"):
        menus[-1].value = word
        maps.add(looked.png)
    assert len(maps) == 3
    steps.value = 2                            # seen before: comes at once
    steps.value = 3
    assert len(passes) == drawn
    prompt.value = "a blue <dragn>"            # nonsense: it says so, and goes on
    assert "dragn" in words_of(widget)
    prompt.value = "a cat in teh snow"
    assert "the" in words_of(widget)
    assert image.png in seen
    prompt.value = ""
    assert "no prompt" in words_of(widget)
    prompt.value = "a blue cat <&>"
    assert "a blue cat &lt;&amp;&gt;" in words_of(widget)
    assert image.png not in seen


def test_the_sampler_bench_draws_what_its_sliders_say(digits):
    schedule = schedules.linear(100)
    ideal = IdealDenoiser(digits, schedule)
    widget = sampler_bench(ideal, schedule, 4, (1, 28, 28), lambda x: f"mean {x.mean():.3f}", steps=10)
    (image,), (fresh,) = parts(widget, Picture), parts(widget, ipywidgets.FloatSlider)
    number, seed = parts(widget, ipywidgets.IntSlider)
    number.value, fresh.value, seed.value = 7, 1.0, 5
    noise = PerSampleNoise(5, 4)
    x = run(sample(ideal, noise((1, 28, 28)), schedule, 7, eta=1.0, noise=noise, clip=True))
    assert image.png == picture_bytes(x, 480)
    words = words_of(widget)
    assert "<b>7</b> steps took" in words
    assert f"mean {x.mean():.3f}" in words


def test_the_brush_paints_into_the_loop_and_lets_it_go_on(digits):
    schedule = schedules.linear(100)
    two = torch.full((2, 1, 28, 28), -1.0)     # a dark picture, and one with a bright square in its middle
    two[1, :, 9:19, 9:19] = 1.0
    widget = brush(IdealDenoiser(two, schedule), schedule, (1, 28, 28), steps=10)
    plain, touched, after = parts(widget, Picture)
    across, down, size, turn = parts(widget, ipywidgets.IntSlider)
    ink, = parts(widget, ipywidgets.Dropdown)
    size.value, across.value, down.value = 14, 14, 14
    results = set()
    for value in ("white", "black"):
        ink.value, turn.value = value, 6
        results.add(after.png)
        turn.value = 10
        results.add(after.png)
    assert plain.png in results              # at the last turn nothing is changed by a dot ...
    assert len(results) == 2                   # ... half way it decides which of the two it becomes


def test_the_brush_paints_where_and_when_its_sliders_say():
    schedule = schedules.linear(100)

    def halves(x_t, t):
        return from_x0(0.5 * x_t, x_t, t, schedule)

    widget = brush(halves, schedule, (1, 28, 28), steps=10)
    _, touched, after = parts(widget, Picture)
    across, down, size, turn = parts(widget, ipywidgets.IntSlider)
    parts(widget, ipywidgets.Dropdown)[0].value = "black"
    across.value, down.value, size.value, turn.value = 20, 3, 3, 6
    noise = PerSampleNoise(0, 1)
    x_T, eps = noise((1, 28, 28)), noise((1, 28, 28))
    x_t = list(sample(halves, x_T, schedule, 10, clip=True))[5].x_t.clone()          # at t = 50
    dot = add_noise(torch.full((1, 1, 28, 28), -1.0), torch.tensor([50]), eps, schedule)
    x_t[..., 2:5, 19:22] = dot[..., 2:5, 19:22]                                      # a dot of 3 is 3 x 3
    assert touched.png == picture_bytes(x_t)
    assert after.png == picture_bytes(run(SamplingLoop(halves, x_t, schedule, [50, 40, 30, 20, 10, 0], clip=True)))


def test_a_slow_widget_updates_once_when_its_sliders_rest(digits):
    schedule, calls, drawn = schedules.linear(100), [], []

    def slow(x_t, t):
        calls.append(int(t[0]))
        return IdealDenoiser(digits, schedule)(x_t, t)

    async def drag():
        widget = sampler_bench(slow, schedule, 1, (1, 28, 28), drawn.append, steps=2)
        number, _ = parts(widget, ipywidgets.IntSlider)
        calls.clear()
        drawn.clear()
        for steps in (3, 4, 5, 6):
            number.value = steps
            await asyncio.sleep(0)
        assert not calls
        assert "working" in words_of(widget)
        await asyncio.sleep(0.3)
        assert len(calls) == 6                 # the last of them, and only that, and once
        assert len(drawn) == 1
        assert "<b>6</b> steps" in words_of(widget)

    asyncio.run(drag())


def test_every_picture_says_what_it_shows_and_says_it_anew_when_it_changes():
    every_widget = small_widgets.every_widget()
    assert set(every_widget) == {name for name in classroom.__all__
                                 if getattr(getattr(classroom, name), "__module__", "") == classroom.widgets.__name__}
    for name, make in every_widget.items():
        widget, changes = make(), 0
        pictures = parts(widget, Picture)
        for mover in parts(widget, (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.Dropdown)):
            before = [(picture.png, picture.alt) for picture in pictures]
            if isinstance(mover, ipywidgets.Dropdown):
                mover.index = (mover.index + 1) % len(mover.options)
            else:
                mover.value = mover.max if mover.value < mover.max else mover.min
            for (png, alt), picture in zip(before, pictures):
                assert (png == picture.png) or (alt != picture.alt), (name, mover.description, alt)
                changes += png != picture.png
                image, = Page(picture.value).all("img")
                assert image["alt"] == picture.alt
                assert image["src"].endswith(base64.b64encode(picture.png).decode())
                assert len(picture.alt) > 10
        assert changes, name


def test_running_a_cell_again_leaves_no_models_behind(monkeypatch):
    shell = SimpleNamespace(parent_header={"metadata": {"cellId": "one"}}, execution_count=1, user_ns={})
    monkeypatch.setattr(classroom.widgets, "get_ipython", lambda: shell)
    for name, make in small_widgets.every_widget().items():
        counts = []
        for shell.execution_count in range(1, 4):
            make()
            counts.append(len(live_widgets()))
        assert counts[0] == counts[1] == counts[2], f"{name}: {counts}"


def test_results_are_cached_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(classroom.widgets, "CACHED", 3)
    cache, made = {}, itertools.count()
    numbers = [classroom.widgets._cached(cache, key, made.__next__) for key in (1, 2, 1, 3, 4, 1)]
    assert numbers == [0, 1, 0, 2, 3, 4]
    assert list(cache) == [3, 4, 1]


def test_running_a_cell_again_closes_what_it_showed_before(digits, monkeypatch):
    shell = SimpleNamespace(parent_header={"metadata": {"cellId": "one"}}, execution_count=1, user_ns={})
    monkeypatch.setattr(classroom.widgets, "get_ipython", lambda: shell)
    schedule = schedules.linear(100)
    loop = list(sample(IdealDenoiser(digits, schedule), torch.randn(1, 1, 28, 28), schedule, 2))
    first, second = loop_player(loop), loop_player(loop)       # two in one cell live side by side
    inside = parts(first, Picture)
    assert not any(closed(widget) for widget in (first, second, *inside))
    shell.execution_count = 2
    third = loop_player(loop)
    assert all(closed(widget) for widget in (first, second, *inside))
    shell.parent_header, shell.execution_count = {"metadata": {"cellId": "two"}}, 3
    loop_player(loop)
    assert not closed(third)


def closed(widget):
    return widget.comm is None


def test_a_failing_callback_is_seen_and_heard(digits):
    schedule, calls = schedules.linear(100), []

    def breaks_later(x_t, t):
        calls.append(int(t[0]))
        if len(calls) > 1:
            raise RuntimeError("out of <luck>")
        return IdealDenoiser(digits, schedule)(x_t, t)

    widget = denoise_slider(digits[0], breaks_later, schedule)
    with pytest.raises(RuntimeError, match="out of <luck>"):
        parts(widget, ipywidgets.IntSlider)[0].value = 7
    assert "RuntimeError: out of &lt;luck&gt;" in words_of(widget)
