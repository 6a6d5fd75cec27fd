"""Exercises of lesson 07: Stable Diffusion's parts."""

from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F

from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, with_gradients
from diffusion_lessons.models.stable_diffusion.clip import clip_loss
from diffusion_lessons.models.stable_diffusion.layers import Attention
from diffusion_lessons.models.stable_diffusion.tokenizer import train_bpe
from diffusion_lessons.pipelines.latent import LatentPipeline


def sample_encoder(g, k):
    """An encoder whose latents have an uneven spread and a mean far from 0, and pictures for it."""
    gains = torch.rand(4, generator=g) * 8 + 2
    shift, f = 4 + 4 * torch.rand(4, generator=g), (2, 4)[k % 2]

    def encode(x):
        if x.ndim != 4 or x.shape[2] % f:
            raise ValueError(f"pictures must be (B, C, H, W) with sides divisible by {f}, got {tuple(x.shape)}")
        small = F.avg_pool2d(inputs.as_a_network(x, torch.zeros(len(x))), f).mean(1, keepdim=True)
        return gains.reshape(1, 4, 1, 1) * small + shift.reshape(1, 4, 1, 1)

    x = inputs.picture(g, (inputs.one(g, 5, 8), 3, 8, 8))
    return encode, 0.5 * x + 0.5 * torch.linspace(-1, 1, len(x)).reshape(-1, 1, 1, 1)    # from dark to light


def by_spread(read):
    """read(latents) as an answer."""
    return lambda encode, x: read(encode(x))


def scale_factor(encode, x):
    return 1 / encode(x).std()


SCALE = Exercise(
    "7.1", "scale_factor(encode, x)", sample_encoder, scale_factor, reference=scale_factor, tolerance=2e-3,
    alternatives=[by_spread(lambda z: 1 / z.std(correction=0)), by_spread(lambda z: z.var() ** -0.5)],
    praise="right: measured, not invented. Stable Diffusion's 0.18215 was found in the same way.",
    hints=["encode(x) gives the latents, (B, 4, h, w). What is their standard deviation?",
           "One number for all of them: factor * latents must have a standard deviation of 1.",
           "1 / encode(x).std()"],
    mistakes=[
        (by_spread(lambda z: z.std()), "that is the spread itself: the factor must undo it."),
        (by_spread(lambda z: 1 / z.var()), "you took the variance; the spread is its root."),
        (by_spread(lambda z: 1 / z.std((0, 2, 3))), "that is a factor for each channel; one number serves all."),
        (by_spread(lambda z: 1 / z.square().mean().sqrt()), "that is the root mean square, which counts the mean as "
         "well: take the standard deviation."),
        (by_spread(lambda z: 1 / z.flatten(1).std(1).mean()), "you averaged the spreads of the single pictures: what "
         "differs between pictures counts as well. Take all latents together."),
        (by_spread(lambda z: 1 / z.std((0, 2, 3)).mean()), "you averaged the spreads of the channels: what differs "
         "between channels counts as well. Take all latents together."),
        (by_spread(lambda z: 1 / z.abs().max()), "that brings the largest to 1; bring the standard deviation to 1."),
        (lambda encode, x: 1 / x.std(), "that is the pictures' spread: measure the latents, encode(x)."),
    ])


def sample_words(g, k):
    """Words as lists of token numbers and how often each word occurs; one pair of neighbours is ahead of all others.

    No two of the usual mistakes give the same pair.
    """
    while True:
        lengths = [4, 5, *torch.randint(1, 7, (inputs.one(g, 3, 6),), generator=g).tolist()]
        words = [(20 + torch.randint(6, (length,), generator=g)).tolist() for length in lengths]
        counts = [inputs.one(g, 1, 9) for _ in words]
        ranked = occurrences(words, counts).most_common(2)
        others = {f(words, counts) for f in (in_most_words, across_words, most_frequent_tokens, rarest)}
        (a, b), most = ranked[0]
        if a != b and most > ranked[1][1] and len(others) == 4 and not {(a, b), (b, a)} & others:
            return words, counts


def occurrences(words, counts):
    """How often each pair of neighbours occurs: a Counter {(a, b): number}."""
    pairs: Counter = Counter()
    for word, count in zip(words, counts):
        for pair in pairwise(word):
            pairs[pair] += count
    return pairs


def first_of(numbers):
    """The key with the largest number; on equal numbers the smallest key, so that it is always the same."""
    return min(numbers, key=lambda key: (-numbers[key], key))


def in_most_words(words, counts):
    return first_of(occurrences(words, [1] * len(words)))


def across_words(words, counts):
    text = [token for word, count in zip(words, counts) for token in word * count]
    return first_of(Counter(pairwise(text)))


def most_frequent_tokens(words, counts):
    tokens: Counter = Counter()
    for word, count in zip(words, counts):
        for token in word:
            tokens[token] += count
    first = first_of(tokens)
    del tokens[first]
    return first, first_of(tokens)


def rarest(words, counts):
    pairs = occurrences(words, counts)
    return min(pairs, key=lambda pair: (pairs[pair], pair))


def best_pair(words, counts):
    pairs: dict = {}
    for word, count in zip(words, counts):
        for pair in zip(word, word[1:]):
            pairs[pair] = pairs.get(pair, 0) + count
    return max(pairs, key=lambda pair: pairs[pair])


BPE = Exercise(
    "7.2", "best_pair(words, counts)", sample_words, lambda words, counts: first_of(occurrences(words, counts)),
    reference=best_pair, shows=[train_bpe], integers=True,
    praise="right: byte-pair encoding merges this pair into one token, and looks for the next.",
    remark="The package's function does it until it has learned as many merges as are wanted.",
    hints=["zip(word, word[1:]) gives the pairs of neighbours in a word.",
           "A pair occurs as often as its word does: add the word's count, not 1.",
           "pairs[pair] = pairs.get(pair, 0) + count for every pair of every word; then max(pairs, key=pairs.get)."],
    mistakes=[
        (in_most_words, "a pair counts as often as its word occurs in the text: add the word's count, not 1."),
        (across_words,
         "the last token of a word and the first of the next are no neighbours: pairs never cross a word."),
        (most_frequent_tokens, "these are the two most frequent tokens; count pairs of neighbours."),
        (rarest, "that is the rarest pair; take the most frequent one."),
        (lambda words, counts: first_of(occurrences(words, counts))[::-1],
         "the order is reversed: the pair (a, b) means that a comes before b."),
        (lambda words, counts: occurrences(words, counts)[first_of(occurrences(words, counts))],
         "that is how often it occurs; return the pair itself."),
    ])


def sample_vectors(g, k):
    """Vectors of pictures and their captions, of length 1, each pair somewhat alike, and a scale."""
    count, width = inputs.one(g, 4, 7), inputs.one(g, 8, 12)
    pictures = torch.randn(count, width, generator=g)
    texts = pictures + 0.8 * torch.randn(count, width, generator=g)
    return F.normalize(pictures, dim=1), F.normalize(texts, dim=1), 2.0 + inputs.one(g, 1, 8)


def contrast(read):
    """read(scores, which one is right) as an answer; scores[i, j] of picture i and text j."""
    def loss(pictures, texts, scale):
        return read(scale * pictures @ texts.T, torch.arange(len(pictures)))
    return loss


def contrastive_loss(pictures, texts, scale):
    scores = scale * pictures @ texts.T                                      # (B, B)
    right = torch.arange(len(pictures))
    return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2


CONTRAST = Exercise(
    "7.3", "contrastive_loss(pictures, texts, scale)", sample_vectors, contrastive_loss, reference=contrastive_loss,
    shows=[clip_loss], use=with_gradients, trains=True,
    praise="right: every picture must find its text among all, and every text its picture.",
    remark="The package's loss leaves out captions that are equal: they are no wrong answers.",
    hints=["scores = scale * pictures @ texts.T is a square table: row i compares picture i with every text.",
           "The right answer of row i is i. F.cross_entropy(scores, torch.arange(B)) is the loss of the rows.",
           "The texts look for their pictures as well: the same with scores.T, and the mean of both."],
    mistakes=[
        (contrast(F.cross_entropy),
         "only the pictures look for their texts; the texts look for their pictures too: take the columns as well."),
        (contrast(lambda s, right: F.cross_entropy(s.T, right)), "only the texts look for their pictures; take the "
         "rows as well."),
        (contrast(lambda s, right: F.cross_entropy(s, right) + F.cross_entropy(s.T, right)),
         "take the mean of the two losses, not their sum."),
        (lambda p, t, scale: contrastive_loss(p, t, 1), "the scores are not multiplied by the scale."),
        (lambda p, t, scale: contrastive_loss(p, t, 1 / scale), "multiply by the scale; you divided by it."),
        (contrast(lambda s, right: 1 - s.diagonal().mean()), "that only pulls each pair together: nothing pushes the "
         "wrong pairs apart, and all vectors could become the same."),
        (contrast(lambda s, right: -s.diagonal().mean()), "that only pulls each pair together: nothing pushes the "
         "wrong pairs apart, and all vectors could become the same."),
        (contrast(lambda s, right: (F.cross_entropy(s.softmax(1), right) + F.cross_entropy(s.T.softmax(1), right)) / 2),
         "cross_entropy takes the scores themselves: it has a softmax of its own."),
    ])


def sample_queries(g, k):
    """Queries, keys and values: (B, N, d), (B, L, d), (B, L, e), all numbers different."""
    B, L, N, d, e = (inputs.one(g, low, low + 2) for low in (1, 3, 6, 9, 12))
    return inputs.noise(g, (B, N, d)), inputs.noise(g, (B, L, d)), inputs.noise(g, (B, L, e))


def mixing(weigh):
    """weigh(scores before any scaling, d) -> weights, as an answer."""
    return lambda q, k, v: weigh(q @ k.transpose(1, 2), q.shape[-1]) @ v


def attention(q, k, v):
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5                      # (B, N, L)
    return scores.softmax(dim=-1) @ v


ATTENTION = Exercise(
    "7.4", "attention(q, k, v)", sample_queries, F.scaled_dot_product_attention, reference=attention,
    shows=[Attention], praise="right: and with k and v from the same positions as q, it is self-attention.",
    remark="The package calls PyTorch's function, which does it without ever storing the table of weights.",
    hints=["q @ k.transpose(1, 2) is (B, N, L): how well each query fits each key.",
           "Divide by the square root of d = q.shape[-1], then softmax over the keys, so that each row adds up to 1.",
           "(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v"],
    mistakes=[
        (mixing(lambda s, d: s.softmax(-1)), "the scores are not divided by the square root of d."),
        (mixing(lambda s, d: (s / d).softmax(-1)), "you divided by d; it should be its square root."),
        (mixing(lambda s, d: (s * d**0.5).softmax(-1)), "divide by the square root of d; you multiplied."),
        (mixing(lambda s, d: (s / d**0.5).softmax(1)),
         "the softmax runs over the queries: each query's weights, a row, should add up to 1."),
        (mixing(lambda s, d: (s / d**0.5).softmax(0)), "the softmax runs over the batch: each query's weights, a row, "
         "should add up to 1."),
        (mixing(lambda s, d: s / d**0.5), "the softmax is missing: the weights of a row should add up to 1."),
        (mixing(lambda s, d: s.softmax(-1) / d**0.5), "divide before the softmax: after it the rows no longer add up "
         "to 1."),
        (mixing(lambda s, d: (s / d**0.5).sigmoid()), "a sigmoid for each; use softmax, so that a row adds up to 1."),
        (lambda q, k, v: (q @ k.transpose(1, 2) / k.shape[1] ** 0.5).softmax(-1) @ v,
         "you divided by the root of the number of keys; d is the length of one query, q.shape[-1]."),
    ])


def sample_decoder(g, k):
    """A decoder of raw latents whose result depends on their size, latents of unit variance, and the factor."""
    a, f = 0.2 + torch.rand((), generator=g).item(), (2, 4)[k % 2]

    def decode(z):
        return torch.tanh(a * F.interpolate(inputs.as_a_network(z, torch.zeros(len(z))), scale_factor=f))

    shape = (1 if k % 3 == 1 else inputs.one(g, 2, 4), 4, inputs.one(g, 2, 4), inputs.one(g, 5, 6))
    return decode, inputs.noise(g, shape), 0.1 + 0.3 * torch.rand((), generator=g).item()


def fixed_decode(decode, latents, scaling_factor):
    return decode(latents / scaling_factor).clamp(-1, 1)


FIXED = Exercise(
    "7.5", "fixed_decode(decode, latents, scaling_factor)", sample_decoder, fixed_decode, reference=fixed_decode,
    shows=[LatentPipeline.decode],
    praise="fixed: the decoder gets latents of the size that it was trained on.",
    hints=["What is the standard deviation of the latents here, and what was it when the decoder was trained?",
           "encode multiplies by the factor, so that the U-Net sees a variance of 1. What must decode do?"],
    mistakes=[
        (lambda decode, z, factor: decode(z).clamp(-1, 1), STILL_BROKEN),
        (lambda decode, z, factor: decode(factor * z).clamp(-1, 1),
         "you multiplied once more: encode has multiplied, so decode must divide."),
        (lambda decode, z, factor: (decode(z) / factor).clamp(-1, 1),
         "the latents are too small, not the picture: divide before decoding."),
        (lambda decode, z, factor: decode(z / factor**0.5).clamp(-1, 1),
         "divide by the factor itself, not by its root."),
        (lambda decode, z, factor: decode(z / z.std()).clamp(-1, 1),
         "do not measure the latents of these pictures: the factor is one fixed number."),
    ])

EXERCISES = [SCALE, BPE, CONTRAST, ATTENTION, FIXED]
