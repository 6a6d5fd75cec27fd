"""Exercises of lesson 05: the sentence goes in."""

import torch

from diffusion_lessons import training
from diffusion_lessons.exercises import inputs
from diffusion_lessons.exercises.checking import STILL_BROKEN, Exercise, with_gradients
from diffusion_lessons.models.text import BOS, EOS, PAD, CausalBlock, CrossAttention, Tokenizer

WORDS = ("a", "cat", "frog", "green", "on", "snow", "stilts", "the")


def sample_sentence(g, k):
    """Two to five words and their numbers; a row with room to spare, an exact fit, and no words at all."""
    count = 0 if k % 3 == 2 else inputs.one(g, 2, 5)
    numbers = dict(zip(WORDS, (3 + torch.randperm(40, generator=g)[:len(WORDS)]).tolist()))
    chosen = [WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=g)]
    return " ".join(chosen), numbers, count + 2 + (0 if k % 3 == 1 else inputs.one(g, 2, 5))


def encode(text, number, length):
    row = [1] + [number[word] for word in text.split()] + [2]                # BOS, the words, EOS
    return row + [0] * (length - len(row))                                   # then PAD


TOKENS = Exercise(
    "5.1", "encode(text, number, length)", sample_sentence, encode, reference=encode,
    shows=[Tokenizer.encode], integers=True,
    praise="right: the network only ever sees such rows of numbers.",
    hints=["text.split() gives the words, number[word] the number of each.",
           "BOS is 1, EOS is 2 and PAD is 0; the row has `length` numbers in all.",
           "row = [1] + [number[word] for word in text.split()] + [2]; then pad with zeros."],
    mistakes=[
        (lambda t, n, m: [n[w] for w in t.split()] + [PAD] * (m - len(t.split())),
         "BOS and EOS are missing: [1, words, 2, 0, 0, ...]."),
        (lambda t, n, m: [BOS] + [n[w] for w in t.split()] + [PAD] * (m - 1 - len(t.split())),
         "EOS is missing after the last word: in a causal encoder it is the token that sees the whole sentence."),
        (lambda t, n, m: [BOS] + [n[w] for w in t.split()] + [PAD] * (m - 2 - len(t.split())) + [EOS],
         "EOS comes right after the last word, before the padding."),
        (lambda t, n, m: [BOS] + [n[w] for w in t.split()] + [EOS], "pad the row with PAD, to `length` numbers."),
        (lambda t, n, m: encode(t, n, m) + [PAD, PAD],
         "the row is two too long: BOS and EOS count as well."),
        (lambda t, n, m: [PAD] * (m - 2 - len(t.split())) + [BOS] + [n[w] for w in t.split()] + [EOS],
         "the padding belongs after the sentence, not before it."),
        (lambda t, n, m: [BOS] + [n[w] - 3 for w in t.split()] + [EOS] + [PAD] * (m - 2 - len(t.split())),
         "the words' numbers begin at 3, as 0, 1 and 2 are taken: use number[word] as it is."),
    ])


def sample_reader(g, k):
    """A function of n vectors in which each attends to some of the others; in the first try it is causal."""
    n, d = inputs.one(g, 5, 8), inputs.one(g, 2, 4)
    if k % 3 == 0:
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        seen[:, inputs.one(g, 1, n - 2)] = False                            # causal, and one token is seen by none
    else:
        seen = torch.rand(n, n, generator=g) < 0.5
    seen |= torch.eye(n, dtype=torch.bool)
    heads = torch.randn(3, d, d, generator=g)

    def read(x):
        if x.shape != (n, d):
            raise ValueError(f"this one takes vectors of shape ({n}, {d}), not {tuple(x.shape)}")
        q, key, value = (x @ head for head in heads)
        fit = torch.tanh(q @ key.T).masked_fill(~seen, -torch.inf)           # tanh: no weight vanishes
        return x + (fit.softmax(1)[:, :, None] * value).sum(1)               # a weight of 0 adds exactly 0

    return read, n, d


def by_poking(see):
    """The experiment with a different table: see(moved), where moved[i, j] says that output i changed with token j."""
    def sees(read, n, d):
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
        columns = []
        for j in range(n):
            other = x.clone()
            other[j] += 1.0
            columns.append((read(other) != read(x)).any(1))
        return see(torch.stack(columns, 1))
    return sees


def sees(read, n, d):
    x = torch.randn(n, d)
    before, found = read(x), torch.zeros(n, n, dtype=torch.bool)
    for j in range(n):
        other = x.clone()
        other[j] = torch.randn(d)                                            # a new token j
        found[:, j] = (read(other) != before).any(dim=1)
    return found


SEES = Exercise(
    "5.2", "sees(read, n, d)", sample_reader, by_poking(lambda moved: moved), reference=sees,
    shows=[CausalBlock.forward],
    remark="In the code, is_causal=True restricts attention to the diagonal and below.",
    praise="right: a vector that changes with a token has seen it. Only on and below the diagonal: that is causal.",
    hints=["Pass n random vectors. Then change one of them, token j, and pass them again: which outputs have changed?",
           "Every output that changed has seen token j: that is column j of the table.",
           "found[:, j] = (read(other) != read(x)).any(dim=1)"],
    mistakes=[
        (by_poking(lambda moved: moved.T),
         "rows and columns are swapped: found[i, j] says whether vector i sees token j."),
        (by_poking(torch.logical_not), "the wrong way round: True where the output changed."),
        (by_poking(lambda moved: moved & ~torch.eye(len(moved), dtype=torch.bool)),
         "an output changes with its own token, too: the diagonal is True."),
        (lambda read, n, d: torch.ones(n, n, dtype=torch.bool).tril(),
         "that is the table of a causal encoder. This one may not be causal: change the tokens one by one, and look."),
        (lambda read, n, d: torch.ones(n, n, dtype=torch.bool),
         "not every position sees every token: change one token at a time, and see which outputs change."),
        (by_poking(lambda moved: moved.sum(1)), "that is how many each one sees. Return which ones: (n, n)."),
    ])


def scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def sample_words(g, k):
    """Queries, keys and values, and which tokens are real: padding at the end, none, or anywhere."""
    places, tokens, d = inputs.one(g, 8, 12), inputs.one(g, 4, 7), (6, 3, 10)[k % 3]
    real = torch.arange(tokens) < (tokens if k % 3 == 1 else inputs.one(g, 2, tokens - 1))
    real = real[torch.randperm(tokens, generator=g)] if k % 3 == 2 else real
    places = 1 if k % 3 == 1 else places
    return (2 * torch.randn(places, d, generator=g), *(2 * torch.randn(tokens, d, generator=g) for _ in range(2)), real)


def look(fit, v, real, fill=-torch.inf):
    return fit.masked_fill(~real, fill).softmax(-1) @ v


def cross_attention(q, k, v, real):
    scores = q @ k.T / q.shape[-1] ** 0.5                                    # (positions, tokens)
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ v


CROSS = Exercise(
    "5.3", "cross_attention(q, k, v, real)", sample_words, lambda q, k, v, real: look(scores(q, k), v, real),
    reference=cross_attention, use=with_gradients, trains=True,
    shows=[CrossAttention.queries_keys_values, CrossAttention.attention_weights, CrossAttention.forward],
    praise="right: the positions of the picture query the tokens, and padding is ignored.",
    hints=["The same formula as before, but q comes from the picture's positions, k and v from the tokens.",
           "`real` is False where a token is PAD: those scores become minus infinity.",
           "(q @ k.T / q.shape[-1]**0.5).masked_fill(~real, -torch.inf).softmax(-1) @ v"],
    mistakes=[
        (lambda q, k, v, r: scores(q, k).softmax(-1) @ v,
         "the positions still attend to padding: its scores must become minus infinity."),
        (lambda q, k, v, r: look(scores(q, k), v, ~r), "the mask is the wrong way round: real is True for words."),
        (lambda q, k, v, r: look(scores(q, k), v, r, 0.0),
         "a score of 0 is not \"never\": exp(0) = 1. Set the masked scores to minus infinity."),
        (lambda q, k, v, r: look(q @ k.T, v, r), "divide the scores by the square root of the width."),
        (lambda q, k, v, r: scores(q, k).masked_fill(~r, -torch.inf).softmax(0).nan_to_num() @ v,
         "the softmax runs over the positions; each position must spread its attention over the tokens (dim=-1)."),
        (lambda q, k, v, r: scores(q, k).masked_fill(~r, -torch.inf).softmax(0) @ v,
         "the softmax runs over the positions; each position must spread its attention over the tokens (dim=-1)."),
        (lambda q, k, v, r: (scores(q, k).softmax(-1) * r) @ v,
         "masking after the softmax leaves weights that do not sum to 1. Mask the scores first."),
        (lambda q, k, v, r: look(scores(q, v), k, r), "keys and values are swapped."),
        (lambda q, k, v, r: look(scores(q, k), torch.eye(len(k)), r), "those are the weights; multiply them by v."),
    ])


def sample_captions(g, k):
    """Captions, which of them to hide (in turn: the first and others, others, none), and the empty caption."""
    count, length = inputs.one(g, 5, 7), inputs.one(g, 3, 4) if k % 2 else 8
    tokens = torch.randint(3, 40, (count, length), generator=g)
    hidden = torch.zeros(count, dtype=torch.bool)
    hidden[1 + torch.randperm(count - 1, generator=g)[:0 if k % 3 == 2 else inputs.one(g, 2, 3)]] = True
    hidden[0] = k % 3 == 0
    return tokens, hidden, torch.tensor([BOS, EOS] + [PAD] * (length - 2))


def hide(tokens, hidden, nothing):
    return torch.where(hidden[:, None], nothing, tokens)


HIDE = Exercise(
    "5.4", "hide(tokens, hidden, nothing)", sample_captions, hide, reference=hide,
    shows=[training.Trainer.sample_batch], integers=True,
    praise="right, row by row: every batch has some pictures with their caption and some without.",
    hints=["hidden is (B,), True where the caption is to go; tokens is (B, L).",
           "torch.where(condition, a, b) takes a where the condition holds; hidden[:, None] fits a whole row.",
           "torch.where(hidden[:, None], nothing, tokens)"],
    mistakes=[
        (lambda x, h, n: torch.where(h.any(), n, x),
         "that hides the whole batch as soon as one caption is to be hidden. A public course has "
         "this bug: hide row by row."),
        (lambda x, h, n: n.expand(len(x), -1),
         "that hides all captions; only the rows where `hidden` is True should go."),
        (lambda x, h, n: torch.where(h[:1, None], n, x),
         "you used the first picture's draw for the whole batch: use all of `hidden`."),
        (lambda x, h, n: hide(x, ~h, n), "the wrong ones are hidden: True means hide."),
        (lambda x, h, n: x.masked_fill(h[:, None], 0),
         "zeros are padding, not a sentence: a hidden caption becomes `nothing`, BOS EOS PAD PAD ..., which the "
         "network learns."),
        (lambda x, h, n: x * ~h[:, None],
         "zeros are padding, not a sentence: a hidden caption becomes `nothing`, BOS EOS PAD PAD ..., which the "
         "network learns."),
        (lambda x, h, n: x, "nothing is hidden: the rows where `hidden` is True should become `nothing`."),
        (lambda x, h, n: x[~h], "hidden captions are replaced, not left out: the pictures stay in the batch."),
    ])


def sample_batch(g, k):
    """Rows of tokens, BOS words EOS and padding, as long as the longest; padding after, before, or anywhere.

    With them queries of picture positions, and keys and values of the tokens.
    """
    lengths = [9, *(inputs.one(g, 3, 8) for _ in range(1 + k % 3))]
    rows = [[BOS, *(inputs.one(g, 3, 40) for _ in range(n - 2)), EOS] + [PAD] * (9 - n) for n in lengths]
    tokens = torch.tensor(rows)[torch.randperm(len(rows), generator=g)]
    tokens = (tokens, tokens.flip(1), tokens[:, torch.randperm(9, generator=g)])[k % 3]
    places, words, worth = (torch.randn(len(rows), n, 6, generator=g) for n in (5, 9, 9))
    return tokens, 2 * places, 2 * words, worth


def looked_through(mask, tokens, places, words, worth):
    """What the positions of a picture get from the tokens through the mask, as in the network."""
    real = mask(tokens)
    if real is None or real is ...:
        return real
    real = torch.as_tensor(real)
    if real.shape != tokens.shape:
        return real
    return torch.nn.functional.scaled_dot_product_attention(places, words, worth, attn_mask=real[:, None])


def fixed_mask(tokens):
    return tokens != 0                                                       # 0 is PAD


FIXED = Exercise(
    "5.5", "fixed_mask(tokens)", sample_batch, fixed_mask, reference=fixed_mask, use=looked_through,
    praise="fixed: a picture no longer depends on the rest of the batch.",
    hints=["Which tokens come after EOS?", "PAD is 0. Real is what is not PAD: tokens != 0, True or False."],
    mistakes=[
        (lambda x: torch.ones(x.shape, dtype=torch.bool), STILL_BROKEN),
        (lambda x: x == PAD, "the wrong way round: True means real."),
        (lambda x: x > EOS, "BOS and EOS are real, too: the network was trained with them. Only PAD is not."),
        (lambda x: (x != PAD) & (x != EOS),
         "EOS is real, too: it sees the whole sentence. Only PAD is not."),
        (lambda x: (x != PAD) & (x != BOS), "BOS is real, too: the network was trained with it."),
        (lambda x: (x != PAD).float(),
         "those are numbers, 1 and 0. Attention *adds* a float mask to its scores, so padding still counts. A mask of "
         "True and False excludes it: tokens != 0 is one."),
        (lambda x: (x != PAD).all(0, keepdim=True).expand_as(x),
         "now all rows end where the shortest does: each sentence has its own length."),
    ])

EXERCISES = [TOKENS, SEES, CROSS, HIDE, FIXED]
