"""Things to play with: sliders that show what a moment of noising, denoising or sampling looks like.

A widget shows its controls, named pictures in a row, and a line of words. Quick ones follow a slider as it is dragged.
Slow ones wait until it rests, say that they are at work, and keep what they have drawn.
"""

import asyncio
import html
import time

import ipywidgets as widgets
import torch
from IPython import get_ipython
from PIL import Image, ImageDraw

from diffusion_lessons.classroom.animation import tile
from diffusion_lessons.classroom.instant import SIZE, CurveWithDot, Histogram, picture_bytes, png
from diffusion_lessons.classroom.style import ORANGE, VERMILLION
from diffusion_lessons.datasets import critters
from diffusion_lessons.datasets.captions import phrase
from diffusion_lessons.forward import add_noise
from diffusion_lessons.guidance import Guided
from diffusion_lessons.models.gan import latent_sphere
from diffusion_lessons.models.text import attention_maps
from diffusion_lessons.pipelines.text_to_image import shown
from diffusion_lessons.samplers import Loop, PictureNoise, finish, sample, timesteps
from diffusion_lessons.schedules import make_schedule

REST = 0.05        # seconds that a control must rest before a slow widget draws
KEPT = 200         # drawn results that a slow widget keeps
_shown = {}        # cell of a notebook -> (which run of it, the widgets it made)

# ipywidgets labels its menus and text fields, but neither the handles of sliders (which in 7.7 have no role or value
# either) nor the buttons of Play, and offers no trait for it. So each widget carries this script, which takes the names
# from the labels, and again whenever a part is redrawn. It is a handler, as in the film player, because a <script>
# would not run here.
ON_SHOWN = """
var mark = this, tries = 50;
function name(box) {
    box.querySelectorAll('.widget-slider').forEach(function (slider) {
        var words = slider.querySelector('label').textContent, number = slider.querySelector('.widget-readout');
        slider.querySelectorAll('.noUi-handle, .ui-slider-handle').forEach(function (handle) {
            handle.setAttribute('aria-label', words);
            if (handle.matches('.ui-slider-handle')) {
                handle.setAttribute('role', 'slider');
                handle.setAttribute('aria-valuenow', number.textContent);
                handle.setAttribute('aria-valuetext', number.textContent);
            }
        });
        number.setAttribute('role', 'textbox');
        number.setAttribute('aria-label', words);
    });
    box.querySelectorAll('.widget-radio').forEach(function (group) {
        group.setAttribute('role', 'radiogroup');
        group.setAttribute('aria-label', group.querySelector('.widget-label').textContent);
    });
    box.querySelectorAll('.widget-play button').forEach(function (button) {
        var sign = button.querySelector('i').classList;
        button.setAttribute('aria-label', sign.contains('fa-play') ? 'play' : sign.contains('fa-pause') ? 'pause'
            : sign.contains('fa-stop') ? 'back to the first step' : 'repeat');
        if (sign.contains('fa-retweet')) button.setAttribute('aria-pressed', button.matches('.mod-active'));
    });
}
(function begin() {
    var box = mark.closest('.dl-widget');
    if (!box) return tries-- && setTimeout(begin, 100);     // not yet in its place on the page
    name(box);
    new MutationObserver(function () { name(box) }).observe(box,
        {childList: true, subtree: true, attributes: true, attributeFilter: ['class']});
})()"""
NAMES = ('<img alt="" hidden src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==" '
         f'onload="{ON_SHOWN}">')


class Picture(widgets.HTML):
    """A picture with an alternative text, which the Image of ipywidgets cannot have."""

    def show(self, png, alt):
        """png: bytes;  alt: what they show, in words"""
        self.png, self.alt = png, alt
        self.value = shown(png, alt)[0]["text/html"]


def schedule_explorer(x0, schedules=("linear", "cosine", "constant", "sigmoid"), lengths=(1000, 100, 20), t=None,
                      seed=0):
    """Slide through time: the picture, the noisy one, where on the curve of alpha_bar that is, and all its numbers.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1];  schedules: names;  lengths: the T to choose from
    t: the time to begin with, of the first T
    """
    x0 = _batch(x0)
    eps = _noise_like(x0, seed)
    known = {(name, T): make_schedule(name, T) for name in schedules for T in lengths}
    curves, histogram = {}, Histogram()
    menu, length = _menu("schedule", list(schedules)), _menu("T", list(lengths))
    moment = _slider("t", 0, lengths[0], lengths[0] // 4 if t is None else t)
    noisy, curve, numbers, words = Picture(), Picture(), Picture(), widgets.HTML()

    def stretch(change):
        """Another T: stay at the same share of the way."""
        share = moment.value / moment.max
        moment.max, moment.value = length.value, round(share * length.value)

    def draw():
        which, t = (menu.value, length.value), min(moment.value, length.value)
        if which not in curves:
            curves[which] = CurveWithDot(known[which])
        a = known[which].alpha_bar[t].item()
        x_t = add_noise(x0, torch.full((len(x0),), t), eps, known[which])
        place = f"t = {t} of {length.value}, {menu.value} schedule"
        noisy.show(picture_bytes(x_t), f"x_t at {place}: {a:.1%} of the variance is picture, {1 - a:.1%} is noise")
        curve.show(curves[which].draw(t), "alpha_bar falls from 1 to "
                                          f"{known[which].alpha_bar[-1]:.2g}; a dot marks {a:.3f} at {place}")
        numbers.show(histogram.draw(x_t.cpu()),
                     f"how often each value occurs in x_t at {place}: mean {x_t.mean():.2f}, standard deviation "
                     f"{x_t.std():.2f}, of pure noise 0 and 1")
        words.value = large(f"picture: <b>{a:.1%}</b> of the variance, factor {a**0.5:.3f}; &nbsp; "
                            f"noise: <b>{1 - a:.1%}</b> of the variance, factor {(1 - a)**0.5:.3f}")

    length.observe(stretch, "value")
    pictures = {"picture x0": _still(x0, "x0, without noise"), "noisy picture x_t": noisy, "alpha_bar": curve,
                "its numbers; dashed: pure noise": numbers}
    return _assemble([moment, menu, length], pictures, words, draw)


def denoise_slider(x0, denoiser, schedule=None, t=None, seed=0):
    """Slide through time: clean, noisy, the denoiser's estimate of the clean picture, and its error.

    x0: (C, H, W) or (B, C, H, W) in [-1, 1], on the denoiser's device;  denoiser: (x_t, t) -> Prediction
    schedule: by default the denoiser's own
    """
    x0 = _batch(x0)
    schedule = denoiser.schedule if schedule is None else schedule
    eps = _noise_like(x0, seed)
    moment = _slider("t", 1, schedule.T, schedule.T // 2 if t is None else t)
    noisy, estimate, error, words = Picture(), Picture(), Picture(), widgets.HTML()

    @torch.no_grad()
    def draw():
        times = torch.full((len(x0),), moment.value, device=x0.device)
        x_t = add_noise(x0, times, eps, schedule)
        eps_hat, x0_hat = denoiser(x_t, times)
        off = (x0_hat - x0).abs()
        of_x0, of_eps = off.square().mean(), (eps_hat - eps).square().mean()
        noisy.show(picture_bytes(x_t), f"x_t at t = {moment.value}")
        estimate.show(picture_bytes(x0_hat), f"the estimate of x0 from t = {moment.value}")
        error.show(picture_bytes(off - 1), f"where the estimate from t = {moment.value} is off: by {off.mean():.3f} on "
                                           f"average, by {off.max():.3f} at most (black to white is 2)")
        words.value = large(f"mean squared error of the picture: <b>{of_x0:.4f}</b>; &nbsp; "
                            f"of the noise: <b>{of_eps:.4f}</b>")

    pictures = {"clean picture x0": _still(x0, "x0, without noise"), "noisy picture x_t": noisy,
                "estimate of x0": estimate, "error (white: large)": error}
    return _assemble([moment], pictures, words, draw)


def loop_player(steps):
    """Slide through a recorded sampling loop: what the network is given, what it makes of it, and what goes on.

    steps: the `Step`s of a loop, list(sample(...))
    """
    steps = list(steps)
    if not steps:
        raise ValueError("there is no step to show: pass list(sample(...)); a loop that has run out is empty")
    turn = _slider("step", 1, len(steps), 1)
    play = widgets.Play(min=1, max=len(steps), value=1, interval=150)
    widgets.link((play, "value"), (turn, "value"))
    given, noise, estimate, onward, words = Picture(), Picture(), Picture(), Picture(), widgets.HTML()

    def draw():
        step = steps[turn.value - 1]
        given.show(picture_bytes(step.x_t), f"x_t at t = {step.t}, where step {turn.value} of {len(steps)} begins")
        noise.show(picture_bytes(step.eps_hat), f"the noise in it, as guessed at t = {step.t}")
        estimate.show(picture_bytes(step.x0_hat), f"the estimate of x0 from t = {step.t}")
        onward.show(picture_bytes(step.x_s), f"x_s at t = {step.s}, where step {turn.value} of {len(steps)} ends")
        words.value = large(f"step <b>{turn.value}</b> of {len(steps)}: "
                            f"from t = <b>{step.t}</b> to <b>{step.s}</b>")

    pictures = {"x_t: what comes in": given, "its noise, as guessed": noise, "estimate of x0": estimate,
                "x_s: what goes on": onward}
    return _assemble([turn], pictures, words, draw, beside=[play])


def walk_slider(generator, seed=0, step=30):
    """Walk by hand through the noise of a generator: two angles on a globe of noise vectors, and where that is on it.

    generator: (B, latent) -> (B, C, H, W) in [-1, 1], with an attribute `latent`;  seed: which globe (see models.gan)
    step: degrees between the pictures of the map, a divisor of 180
    """
    if 180 % step:
        raise ValueError(f"step must divide 180, not {step}")
    turns, tilts = torch.arange(0.0, 360, step), torch.arange(90.0, -91, -step)
    grid = torch.cartesian_prod(tilts, turns)                                   # (N, 2): tilt, turn
    turn, tilt = _slider("turn", 0, 360, 0), _slider("tilt", -90, 90, 0)
    here, where, words = Picture(), Picture(), widgets.HTML()

    @torch.no_grad()
    def pictures(turn, tilt):
        return generator(latent_sphere(generator.latent, turn, tilt, seed).to(next(generator.parameters()).device)).cpu()

    atlas = pictures(grid[:, 1], grid[:, 0])
    high, wide = atlas.shape[-2:]
    atlas = atlas.unflatten(0, (len(tilts), len(turns))).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)   # (C, H, W)
    atlas = Image.fromarray(tile(atlas))

    def draw():
        place = f"turn {turn.value}°, tilt {tilt.value}°"
        x = pictures(torch.tensor([float(turn.value)]), torch.tensor([float(tilt.value)]))
        here.show(picture_bytes(x), f"what the generator makes at {place}")
        x, y = (turn.value / step + 0.5) % len(turns) * wide, ((90 - tilt.value) / step + 0.5) * high
        marked = atlas.copy()
        ImageDraw.Draw(marked).ellipse((x - 9, y - 9, x + 9, y + 9), outline=ORANGE, width=4)
        where.show(png(marked.resize((marked.width * SIZE // marked.height, SIZE))),
                   f"{len(grid)} pictures, every {step}°: turn from left to right, tilt from 90° at the top to -90° "
                   f"below; a ring marks {place}")
        words.value = large(f"turn <b>{turn.value}</b>°, tilt <b>{tilt.value}</b>°: {generator.latent} numbers of "
                            "noise, one picture")

    return _assemble([turn, tilt], {"the picture here": here, "the map around": where}, words, draw)


def sampler_bench(denoiser, schedule, count, shape, read=None, steps=20):
    """Try out the loop: how many steps, how much fresh noise (eta: 0 is DDIM, 1 is DDPM), which seed.

    denoiser: (x_t, t) -> Prediction for `count` pictures of `shape`, such as Guided(denoiser, labels)
    read: x -> a few words about the pictures, for the line below
    """
    number, dice = _slider("steps", 1, 100, steps), _slider("seed", 0, 99, 0)
    fresh = _slider("eta", 0.0, 1.0, 0.0, step=0.1)
    made, words, known = Picture(), widgets.HTML(), {}

    def draw():
        def loop():
            began, noise = time.perf_counter(), PictureNoise(dice.value, count)
            x = finish(sample(denoiser, noise(shape), schedule, number.value, eta=fresh.value, noise=noise, clip=True))
            return x, time.perf_counter() - began

        x, seconds = _once(known, (number.value, fresh.value, dice.value), loop)
        said = f"; &nbsp; {read(x)}" if read else ""
        made.show(picture_bytes(x, 2 * SIZE), f"{count} pictures after {number.value} steps, eta = {fresh.value:g}, "
                                              f"from the noise of seed {dice.value}")
        words.value = large(f"<b>{number.value}</b> steps took {seconds:.2f} s{said}")

    return _assemble([number, fresh, dice], {"what comes out": made}, words, draw, slow=True)


def brush(denoiser, schedule, shape, steps=20, seed=0):
    """Paint a dot into x_t on the way, and let the loop go on: what does it make of it?

    denoiser: (x_t, t) -> Prediction for one picture of `shape`, such as Guided(denoiser, label)
    """
    C, H, W = shape
    noise = PictureNoise(seed, 1)
    turns = list(sample(denoiser, noise(shape), schedule, steps, clip=True))
    eps, known = noise(shape), {}
    across, down = _slider("across", 0, W - 1, W // 2), _slider("down", 0, H - 1, H // 2)
    width, turn = _slider("size", 1, H // 2, max(2, H // 8)), _slider("at turn", 1, steps, steps // 3)
    ink = _menu("ink", ["white", "black"])
    touched, after, words = Picture(), Picture(), widgets.HTML()

    def draw():
        def paint():
            y, x = torch.arange(H)[:, None], torch.arange(W)
            where = ((y - down.value) ** 2 + (x - across.value) ** 2 <= (width.value / 2) ** 2 + 0.3).float()
            step = turns[turn.value - 1]
            dot = torch.full((1, C, H, W), 1.0 if ink.value == "white" else -1.0)
            dot = add_noise(dot, torch.tensor([step.t]), eps, schedule)          # as noisy as all the rest
            x_t = where * dot + (1 - where) * step.x_t
            rest = timesteps(schedule.T, steps)[turn.value - 1:]
            return x_t, finish(Loop(denoiser, x_t, schedule, rest, clip=True)), step.t

        state = tuple(mover.value for mover in (across, down, width, turn, ink))
        x_t, x, t = _once(known, state, paint)
        changed = (x - turns[-1].x_s).abs().mean().item() / 2
        dot = f"x_t at t = {t} with a {ink.value} dot, {width.value} wide, {across.value} across, {down.value} down"
        touched.show(picture_bytes(x_t), dot)
        after.show(picture_bytes(x), f"what the loop makes of {dot}: the picture has changed by {changed:.1%}")
        words.value = large(f"painted at t = <b>{t}</b>: the picture has changed by {changed:.1%}")

    pictures = {"without your dot": _still(turns[-1].x_s, "what the loop makes without a dot"),
                "x_t with your dot": touched, "what becomes of it": after}
    return _assemble([across, down, width, turn, ink], pictures, words, draw, slow=True)


def prompt_lab(denoiser, tokenizer, w=4.0, steps=25, seed=0):
    """Write a sentence (or build one from menus), choose how strongly to insist on it and what to keep away from.

    denoiser: one that reads;  tokenizer: its own;  w, steps, seed: to begin with; few steps of the loop are quick
    Beside the picture: where it looked for a word of the sentence, half way through the loop.
    """
    says = {"subject": critters.SUBJECTS[:-1], "colour": list(critters.COATS), "prop": critters.PROPS[1:],
            "place": critters.PLACES}
    menus = {name: _menu(name, ["(not said)", *words], words[0]) for name, words in says.items()}

    def built():
        return phrase({name: menu.value for name, menu in menus.items() if menu.value != "(not said)"})

    wide = widgets.Layout(width="620px")
    sentence, away = (widgets.Text(value=text, description=name, layout=wide, continuous_update=False,
                                   placeholder="nothing")
                      for name, text in (("prompt", built()), ("not this", "")))
    strength, number = _slider("w", 0.0, 16.0, w, step=0.5), _slider("seed", 0, 20, seed)
    turns, chosen = _slider("steps", 2, 50, steps), tokenizer.split(sentence.value)
    word = _menu("look for", chosen, chosen[2])        # "a green frog ...": the animal
    picture, looked, words, known = Picture(), Picture(), widgets.HTML(), {}

    @torch.no_grad()
    def paint(text, negative, w, seed, steps):
        tokens, other = tokenizer(text), tokenizer(negative) if negative.strip() else None
        loop = sample(Guided(denoiser, tokens, w, negative=other), PictureNoise(seed, 1)((3, 32, 32)),
                      denoiser.schedule, steps, clip=True)
        for k, step in enumerate(loop):
            if k == steps // 2:
                maps = attention_maps(denoiser.net, step.x_t, torch.tensor([step.t]), tokens)[0]
        return step.x_s, maps

    def draw():
        try:
            chosen = tokenizer.split(sentence.value)
            asked = sentence.value, away.value, strength.value, number.value, turns.value
            x, maps = _once(known, asked, lambda: paint(*asked))
        except ValueError as error:                      # a word that it does not know, or too many of them
            words.value = _trouble(str(error))
            return
        if list(word.options) != chosen:
            word.options = chosen
        wish = (f"{sentence.value or 'nothing'!r} (not this: {away.value or 'nothing'!r}; w = {strength.value:g}, "
                f"{turns.value} steps, seed {number.value})")
        picture.show(picture_bytes(x), f"what it draws for {wish}")
        if chosen:
            place = maps[1 + (word.index or 0)]           # the first token is START
            down, across = divmod(int(place.argmax()), place.shape[1])
            looked.show(picture_bytes((2 * place / place.max() - 1)[None]),
                        f"where it looked for the word {word.value!r}, most at {down + 1} of {len(place)} down, "
                        f"{across + 1} of {place.shape[1]} across, when it drew {wish}")
        words.value = large(f"<b>{html.escape(sentence.value) or '(nothing asked)'}</b>")

    def take_from_menus(change):
        sentence.value = built()

    for menu in menus.values():
        menu.observe(take_from_menus, "value")
    row = widgets.HBox(list(menus.values()), layout=widgets.Layout(flex_flow="row wrap"))
    pictures = {"what it draws": picture, "where it looked": looked}
    return _assemble([sentence, away, strength, number, turns, word], pictures, words, draw, slow=True, beside=[row])


def _assemble(movers, pictures, words, draw, slow=False, beside=()):
    """Controls above, named pictures in a row, words below; `draw` runs now and whenever something moves."""
    def redraw():
        try:
            draw()
        except Exception as error:      # notebooks hide a callback's error: say it where the learner looks
            words.value = _trouble(f"{type(error).__name__}: {error}")
            raise

    redraw()
    at_rest = _at_rest(redraw, words)
    for mover in movers:
        mover.observe(at_rest if slow else lambda change: redraw(), "value")
        if slow and hasattr(mover, "continuous_update"):    # draw where a slider is let go, not on the way
            mover.continuous_update = False
    cells = [widgets.VBox([widgets.HTML(large(name)), picture], layout=widgets.Layout(margin="0 12px 0 0"))
             for name, picture in pictures.items()]
    rows = [widgets.HBox(part, layout=widgets.Layout(flex_flow="row wrap")) for part in ([*beside, *movers], cells)]
    box = widgets.VBox([*rows, words, widgets.HTML(NAMES)])
    box.add_class("dl-widget")
    return _instead_of_the_last(box)


def _at_rest(work, words):
    """An observer that does the work once, after the last of many changes, and says meanwhile that it is coming."""
    waiting = []

    def changed(change):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:             # outside of a notebook nothing else could come in between
            return work()
        while waiting:
            waiting.pop().cancel()
        words.value = large("drawing ...")
        waiting.append(loop.call_later(REST, work))

    return changed


def _once(known, key, work):
    """work(), or what it gave before for the same key; the oldest of many are forgotten."""
    if key not in known:
        known[key] = work()
        if len(known) > KEPT:
            del known[next(iter(known))]
    return known[key]


def _instead_of_the_last(box):
    """Close what an earlier run of the same cell has shown: a notebook would keep it, and its pictures, for ever."""
    shell = get_ipython()
    if shell is not None:
        parent = getattr(shell, "parent_header", None) or {}
        cell = parent.get("metadata", {}).get("cellId") or shell.user_ns.get("In", [""])[-1]
        run, boxes = _shown.get(cell, (None, []))
        if run != shell.execution_count:
            for old in boxes:
                close(old)
            boxes = []
        _shown[cell] = shell.execution_count, [*boxes, box]
    return box


def close(widget):
    """Close a widget and all that it is made of: its children, its layout, its style."""
    parts = [getattr(widget, name) for name in widget.keys]
    for part in [*parts, *getattr(widget, "children", ())]:
        if isinstance(part, widgets.Widget):
            close(part)
    widget.unobserve_all()
    widget.close()


def _slider(name, low, high, value, **how):
    kind = widgets.FloatSlider if isinstance(value, float) else widgets.IntSlider
    return kind(value=value, min=low, max=high, description=name, layout=widgets.Layout(width="460px"), **how)


def _menu(name, options, value=None):
    return widgets.Dropdown(options=options, value=options[0] if value is None else value, description=name,
                            layout=widgets.Layout(width="220px"))


def large(text):
    """Text that can be read from the last row, where a widget's own is small."""
    return f'<span style="font-size:16px">{text}</span>'


def _trouble(text):
    """Words about an error. Only their edge is coloured: red letters are hard to read, on white and on black."""
    return large(f'<b style="border-left:6px solid {VERMILLION};padding-left:10px">{html.escape(text)}</b>')


def _still(x, alt):
    picture = Picture()
    picture.show(picture_bytes(x), alt)
    return picture


def _batch(x):
    if not isinstance(x, torch.Tensor) or x.ndim not in (3, 4) or not x.is_floating_point():
        raise ValueError("x0 must be a float picture (C, H, W) or batch (B, C, H, W) in [-1, 1]")
    x = x.detach().float()
    return x if x.ndim == 4 else x[None]


def _noise_like(x, seed):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
