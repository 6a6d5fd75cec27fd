"""The U-Net and the denoiser around it: conditioning, what the output depends on, how errors are weighted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons.denoiser import Denoiser, OneStepDenoiser
from diffusion_lessons.forward import add_noise, forward_step, velocity
from diffusion_lessons.models.unet import Attention, UNet, time_embedding
from diffusion_lessons.schedules import SCHEDULES, make_schedule

# ---- the time embedding


def judge_embedding(embed, T, width):
    """What a time embedding must do, for any function embed(t (B,), width, T) -> (B, width). Asserts."""
    t = torch.arange(1, T + 1)
    table = embed(t, width, T).double()
    assert table.shape == (T, width)
    # A time is a time: whatever the batch that it comes in, and wherever in it.
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(embed(t[order], width, T).double(), table[order], rtol=0, atol=1e-5)
    for some in (1, T // 2, T):
        alone = embed(torch.tensor([some]), width, T).double()[0]
        torch.testing.assert_close(alone, table[some - 1], rtol=0, atol=1e-5)
    # All times are distinct, by more than rounding could blur.
    apart = torch.cdist(table, table) / math.sqrt(width)   # root mean square over the channels
    assert (apart + torch.eye(T)).min() > 0.01
    # Neighbours are nearer than times at large: else the network could not learn one t from the next.
    neighbours = apart.diagonal(1)
    assert neighbours.max() < 0.5 * apart[0, T // 4 :].min()
    assert neighbours.max() < 3 * neighbours.min()


@pytest.mark.parametrize("width", [32, 64, 128])
def test_the_time_embedding_tells_all_times_apart_smoothly(width):
    judge_embedding(time_embedding, 1000, width)


def rates(width):
    return torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))


def sine_and_cosine_along_t(t, width, T):
    """The bug of a public course: sine and cosine take turns along the times, not along the channels."""
    angles = t.float()[:, None] * rates(width).repeat_interleave(2)[None, :]
    return torch.where((t % 2 == 0)[:, None], angles.sin(), angles.cos())


def along_the_batch(t, width, T):
    """The place in the batch taken for the time."""
    angles = torch.arange(len(t)).float()[:, None] * rates(width)[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def the_same_for_all(t, width, T):
    """The sinusoid runs over the channels only; t never enters."""
    return torch.cat([rates(width).sin(), rates(width).cos()])[None, :].expand(len(t), width)


def too_slow(t, width, T):
    """t in 0..1 goes in as it is: neighbours cannot be told apart."""
    angles = t.float()[:, None] / T * rates(width)[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def too_fast(t, width, T):
    """No two times are alike, neighbours as little as others."""
    return time_embedding(t * 1000, width, T)


BUGGY = [sine_and_cosine_along_t, along_the_batch, the_same_for_all, too_slow, too_fast]


@pytest.mark.parametrize("buggy", BUGGY)
@pytest.mark.parametrize("width", [32, 64, 128])
def test_wrong_time_embeddings_are_found_out(buggy, width):
    with pytest.raises(AssertionError):
        judge_embedding(buggy, 1000, width)


def test_the_time_embedding_is_its_formula_and_the_same_for_every_T():
    emb = time_embedding(torch.tensor([0, 7, 100]), 8, 100)
    for b, t in enumerate((0, 7, 100)):
        angles = [1000 * t / 100 * 10000 ** (-k / 4) for k in range(4)]
        expected = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        torch.testing.assert_close(emb[b], expected, rtol=0, atol=1e-4)
    short, long = time_embedding(torch.tensor([7]), 64, 100), time_embedding(torch.tensor([70]), 64, 1000)
    torch.testing.assert_close(short, long, rtol=0, atol=1e-4)


# ---- the network


def unet(seed=0, **settings):
    """A small network without the zeros of its initialisation, so that every part affects the output."""
    torch.manual_seed(seed)
    net = UNet(**{"channels": (16, 32), "blocks": 1, "classes": 3, **settings})
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return net.eval()


@pytest.fixture
def x(g):
    return torch.randn(4, 1, 8, 8, generator=g)


T1 = torch.tensor([10, 10, 10, 10])
Y = torch.tensor([0, 1, 2, 0])


def differ(a, b):
    return (a - b).flatten(1).abs().amax(1)


@torch.no_grad()
def test_the_output_depends_on_the_time(x):
    net = unet()
    assert differ(net(x, T1), net(x, T1 + 1)).min() > 1e-4   # one step later already
    assert differ(net(x, T1), net(x, T1 + 500)).min() > 1e-2


@torch.no_grad()
def test_the_output_depends_on_the_label_and_on_its_absence(x):
    net = unet()
    says = [net(x, T1, torch.full((4,), y)) for y in range(3)] + [net(x, T1)]
    for i in range(4):
        for j in range(i):
            assert differ(says[i], says[j]).min() > 1e-2
    torch.testing.assert_close(net(x, T1, torch.full((4,), 3)), says[3])   # label `classes` is "no label"


@torch.no_grad()
def test_time_conditioned_false_is_the_same_network_without_the_time(x):
    with_t, without_t = unet(), unet(time_conditioned=False)
    assert torch.equal(without_t(x, T1, Y), without_t(x, T1 + 700, Y))
    assert differ(without_t(x, T1, Y), without_t(x, T1, Y.flip(0) + 1)).max() > 1e-2   # but it does depend on the label
    assert sum(p.numel() for p in with_t.parameters()) == sum(p.numel() for p in without_t.parameters())


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"patch": 1}, {"channels": (8, 16, 64), "patch": 1}, {"blocks": 2},
                                      {"attention": False}])
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(settings, x):
    net, t = unet(**settings), torch.tensor([1, 300, 700, 1000])
    together = net(x, t, Y)
    assert together.shape == x.shape
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], Y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_every_parameter_is_used(x):
    net = unet(blocks=2)
    net(x, torch.tensor([1, 300, 700, 1000]), torch.tensor([0, 1, 2, 3])).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 1e-6, name
    assert net.class_embedding.weight.grad.abs().amax(1).min() > 1e-6   # each label's row, including that of "no label"


@torch.no_grad()
def test_skip_connections_carry_the_details(x):
    """With everything below the first level set to zero, the input still reaches the output."""
    net = unet()
    for block in [*net.down_blocks[1:], *net.mid_block]:
        block.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    assert differ(net(x, T1), net(x.flip(-1), T1)).min() > 1e-2


@torch.no_grad()
def test_attention_is_its_formula(g):
    """softmax(q k^T / sqrt(d)) v for each head, written out in float64."""
    torch.manual_seed(0)
    layer = Attention(64).double()
    layer.to_out.weight.normal_(std=0.2)
    x = torch.randn(2, 64, 3, 2, generator=g, dtype=torch.float64)
    q, k, v = layer.to_qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)                 # (B, C, N) each
    heads = []
    for at in (slice(0, 32), slice(32, 64)):
        match = torch.einsum("bci,bcj->bij", q[:, at], k[:, at]) / math.sqrt(32)     # i asks, j answers
        heads.append(torch.einsum("bij,bcj->bci", match.softmax(-1), v[:, at]))
    expected = x + layer.to_out(torch.cat(heads, 1).reshape(x.shape))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_each_position_attends_to_all_others(g):
    torch.manual_seed(0)
    layer = Attention(32)
    layer.to_out.weight.normal_(std=0.2)
    x = torch.randn(1, 32, 4, 4, generator=g)
    shuffled = torch.randperm(16, generator=g)

    def shuffle(a):
        return a.flatten(2)[..., shuffled].reshape(a.shape)

    # no position is special
    torch.testing.assert_close(layer(shuffle(x)), shuffle(layer(x)), rtol=0, atol=1e-5)
    other = x.clone()
    other[..., 3, 3] = -x[..., 3, 3]
    assert (layer(other) - layer(x))[0].abs().amax(0).min() > 1e-4


def test_without_attention_nothing_but_convolutions_looks_around():
    assert not any(isinstance(part, Attention) for part in unet(attention=False).modules())
    assert any(isinstance(part, Attention) for part in unet().modules())


@torch.no_grad()
def test_a_network_is_built_again_from_its_config(x):
    net = unet(channels=(8, 16, 32), patch=1, classes=4, T=50, attention=False)
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x, T1, Y), net(x, T1, Y))


def test_the_network_refuses_bad_input_in_words(x):
    with pytest.raises(ValueError, match="without labels"):
        unet(classes=None)(x, T1, Y)
    with pytest.raises(ValueError, match="divisible by 4"):
        unet()(x[..., :6], T1, Y)
    with pytest.raises(ValueError, match="4 pictures but 3 conditions"):
        unet()(x, T1, Y[:3])
    with pytest.raises(ValueError, match="unconditional"):
        unet(classes=None).null_condition(4)
    with pytest.raises(ValueError, match="without a text encoder"):
        unet().encode_text(torch.ones(4, 8, dtype=torch.int64))


@torch.no_grad()
def test_labels_their_condition_and_the_null_condition_are_interchangeable(x):
    net, rows = unet(), torch.tensor([True, False, True, False])
    condition, null = net.encode_labels(Y), net.null_condition(4)
    assert torch.equal(net(x, T1, condition), net(x, T1, Y))
    assert torch.equal(net(x, T1, null), net(x, T1))
    mixed = condition.where(rows, null)
    expected = torch.where(rows[:, None, None, None], net(x, T1, Y), net(x, T1))
    torch.testing.assert_close(net(x, T1, mixed), expected, rtol=0, atol=1e-5)
    assert torch.equal(net(x, T1, mixed), net(x, T1, torch.where(rows, Y, net.null_y)))    # as training hides labels
    assert unet(classes=None).null_y is None


# ---- the denoiser


class Says(torch.nn.Module):
    """A stand-in for a network: always says the same."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x_t, t, y=None):
        return self.output


@given(name=st.sampled_from(tuple(SCHEDULES)), prediction_type=st.sampled_from(["eps", "x0", "v"]),
       weighting=st.sampled_from(["eps", "x0", "v"]), seed=st.integers(0, 10**6))
def test_the_loss_is_the_error_that_the_weighting_names(name, prediction_type, weighting, seed):
    """Whatever the network outputs, the loss is the squared error of what `weighting` names, unless clamped."""
    s, g = make_schedule(name, 1000), torch.Generator().manual_seed(seed)
    x0, eps, wrong = torch.randn(3, 16, 1, 2, 2, generator=g, dtype=torch.float64)
    t = torch.randint(1, 1001, (16,), generator=g)
    x_t = add_noise(x0, t, eps, s)
    truth = {"eps": eps, "x0": x0, "v": velocity(x0, eps, t, s)}
    denoiser = Denoiser(Says(truth[prediction_type] + wrong), s, prediction_type)
    loss = denoiser.loss(x0, t, eps, weighting=weighting)
    assert loss.shape == (16,)

    ab = s.alpha_bar[t]
    in_v = {"eps": 1 / ab, "x0": 1 / (1 - ab), "v": torch.ones_like(ab)}     # a squared error of 1, in v
    factor = in_v[prediction_type] / in_v[weighting]
    error = wrong.square().mean((1, 2, 3))
    torch.testing.assert_close(loss, error * factor.clamp(max=100), rtol=1e-5, atol=0)

    hat = denoiser(x_t, t)
    said = {"eps": hat.eps, "x0": hat.x0, "v": velocity(hat.x0, hat.eps, t, s)}[weighting]
    whole = (factor < 99) & (ab > 1e-4) & (ab < 1 - 1e-4)
    missed = (said - truth[weighting]).square().mean((1, 2, 3))
    torch.testing.assert_close(loss[whole], missed[whole], rtol=1e-3, atol=0)


def test_the_factor_is_clamped_at_100_where_it_should_be():
    s = make_schedule("linear", 1000)
    x0, eps = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    t = torch.tensor([1, 500, 1000])
    snr = (s.alpha_bar[t] / (1 - s.alpha_bar[t])).tolist()
    loss = Denoiser(Says(torch.ones(3, 1, 2, 2)), s, "x0").loss(x0, t, eps, weighting="eps")
    assert loss.tolist() == pytest.approx([100, snr[1], snr[2]], rel=1e-4)
    loss = Denoiser(Says(torch.ones(3, 1, 2, 2)), s, "eps").loss(x0, t, eps, weighting="x0")
    assert loss.tolist() == pytest.approx([1 / snr[0], 1 / snr[1], 100], rel=1e-4)


def test_a_perfect_network_has_no_loss_and_gives_the_picture_back(g):
    s = make_schedule("cosine", 1000)
    x0, eps = torch.randn(2, 5, 1, 2, 2, generator=g)
    t = torch.tensor([1, 10, 500, 990, 1000])
    x_t = add_noise(x0, t, eps, s)
    for prediction_type, output in (("eps", eps), ("x0", x0), ("v", velocity(x0, eps, t, s))):
        denoiser = Denoiser(Says(output), s, prediction_type)
        for weighting in ("eps", "x0", "v"):
            assert denoiser.loss(x0, t, eps, weighting=weighting).max() < 1e-8
        hat = denoiser(x_t, t)
        torch.testing.assert_close(hat.eps, eps, rtol=0, atol=1e-3)
        torch.testing.assert_close(hat.x0, x0, rtol=0, atol=1e-2)


@pytest.mark.parametrize("prediction_type", ["v", "x0"])
def test_under_autocast_to_bf16_the_prediction_is_float32_and_finite_at_every_t(prediction_type, x):
    net, s = unet(), make_schedule("cosine", 1000)
    denoiser, t = Denoiser(net, s, prediction_type), torch.tensor([1, 500, 999, 1000])
    plain = denoiser(x, t, Y)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x, t, Y).dtype == torch.bfloat16
        hat = denoiser(x, t, Y)
        loss = denoiser.loss(x, t, x, Y)
    for part in hat:
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    # 8 bits of mantissa, a few layers: x0 at t = T is no worse than the output was
    assert (hat.x0 - plain.x0)[3].abs().max() < 0.05 * (1 + plain.x0[3].abs().max())
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()


def test_unknown_prediction_types_and_weightings_list_the_known(x):
    s = make_schedule("linear", 1000)
    with pytest.raises(ValueError, match="eps, x0, v"):
        Denoiser(unet(), s, prediction_type="score")
    with pytest.raises(ValueError, match="eps, x0, v"):
        Denoiser(unet(), s).loss(x, T1, x, weighting="snr")


class Wrapper(torch.nn.Module):
    """Like DistributedDataParallel: calls what it wraps, and lets nothing else of it be reached."""

    def __init__(self, wrapped):
        super().__init__()
        self.module, self.calls = wrapped, 0

    def forward(self, *args):
        self.calls += 1
        return self.module(*args)


@pytest.fixture
def process_group(tmp_path):
    """A group of one process, for DistributedDataParallel."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train_wrapped(wrap, kind, x):
    """Three steps, one picture without label or tokens.  -> losses, weights, how often the network ran, the model"""
    text = dict(vocab_size=12, length=8, width=16, layers=1, heads=2)
    torch.manual_seed(0)
    net = unet(text=text, classes=None) if kind is Denoiser else unet()
    denoiser = kind(net, make_schedule("linear", 1000))
    y = torch.tensor([[1, 3, 4, 2, 0, 0, 0, 0]] * 4) if kind is Denoiser else Y
    y = torch.where(torch.tensor([0, 0, 1, 0]).bool().reshape(-1, *[1] * (y.ndim - 1)), denoiser.net.null_y, y)
    model, inner, losses = wrap(denoiser), [], []
    denoiser.net.register_forward_hook(lambda *_: inner.append(1))
    optimizer, g = torch.optim.SGD(denoiser.parameters(), lr=0.1), torch.Generator().manual_seed(1)
    for _ in range(3):
        eps = torch.randn(x.shape, generator=g)
        loss = denoiser.loss(x, torch.randint(1, 1001, (4,), generator=g), eps, y, generator=g, model=model).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, denoiser.state_dict(), len(inner), model


@pytest.mark.parametrize("how, kind", [
    ("wrapper", Denoiser), ("wrapper", OneStepDenoiser), ("ddp", Denoiser), ("ddp", OneStepDenoiser),
    pytest.param("compile", Denoiser, marks=pytest.mark.long),
])  # fmt: skip
def test_a_wrapped_denoiser_trains_as_the_plain_one_through_its_forward(how, kind, x, process_group):
    """With text and with labels, whose embeddings get their gradients through the wrapper as well."""
    wrap = {"wrapper": Wrapper, "ddp": torch.nn.parallel.DistributedDataParallel,
            "compile": lambda denoiser: torch.compile(denoiser, backend="eager", fullgraph=True)}[how]
    losses, weights, inner, _ = train_wrapped(lambda denoiser: None, kind, x)
    again, others, calls, model = train_wrapped(wrap, kind, x)
    assert again == pytest.approx(losses, rel=1e-5)
    assert losses[2] != losses[0]
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-6)
    if how == "wrapper":
        assert calls == inner == model.calls == 3     # once a step through the wrapper, and never past it


# ---- the denoiser of one step


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_noise_of_one_step_becomes_a_prediction_of_all_the_noise(name, g):
    s = make_schedule(name, 100)
    x0, eps = torch.randn(2, 4, 1, 2, 2, generator=g, dtype=torch.float64)
    t = torch.tensor([1, 30, 60, 90])
    x_t = add_noise(x0, t, eps, s)
    step = OneStepDenoiser(Says(eps), s, "eps")
    hat = step(x_t, t)
    share = (s.beta[t] / (1 - s.alpha_bar[t])).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(step.step_noise(x_t, t), share * eps, rtol=0, atol=1e-5)
    torch.testing.assert_close(hat.eps, eps, rtol=0, atol=1e-5)
    torch.testing.assert_close(hat.x0, x0, rtol=0, atol=1e-3)


def test_a_reverse_step_undoes_a_forward_step(g):
    s = make_schedule("linear", 100)
    x, e = torch.randn(2, 3, 1, 2, 2, generator=g)
    for t in (1, 50, 100):
        x_t = forward_step(x, t, e, s)
        share = (s.beta[t] / (1 - s.alpha_bar[t])).sqrt().float()
        back = OneStepDenoiser(Says(e / share), s, "eps").reverse_step(x_t, torch.full((3,), t))
        torch.testing.assert_close(back, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [100, 400, 1000])
def test_the_loss_of_one_step_contains_the_chance_that_nobody_can_predict(name, T, g):
    """1 - k^2 at each t; none at t = 1, where the last step is all the noise. Tolerance: 4.5 standard errors."""
    s, n = make_schedule(name, T), 6000
    for t in (1, 2, T // 2, T):
        x0, eps = torch.randn(2, 4, 1, 1, n, generator=g)
        at = torch.full((4,), t)
        loss = OneStepDenoiser(Says(eps), s, "eps").loss(x0, at, eps, generator=g)
        left = 1 - (s.beta[t] / (1 - s.alpha_bar[t])).item()
        assert (loss - left).abs().max() <= 4.5 * math.sqrt(2 / n) * left + 1e-6


def test_the_loss_of_one_step_draws_from_the_generator_that_it_is_given(g):
    s, at = make_schedule("linear", 100), torch.full((4,), 50)
    x0, eps = torch.randn(2, 4, 1, 2, 2, generator=g)
    one, again, other = (OneStepDenoiser(Says(eps), s, "eps").loss(
        x0, at, eps, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert (one - other).abs().min() > 1e-4
