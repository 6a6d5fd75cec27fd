"""Exercises of lesson 05: the sentence goes in."""

import torch

from diffusion_lessons import training
from diffusion_lessons.exercises import drawing
from diffusion_lessons.exercises.judging import AS_IT_WAS, Exercise, with_slopes
from diffusion_lessons.models.text import END, PAD, START, CausalBlock, CrossAttention, Tokenizer

WORDS = ("a", "cat", "frog", "green", "on", "snow", "stilts", "the")


def draw_sentence(g, k):
    """Two to five words and their numbers; a row that they do not fill, just fill, and no words at all."""
    count = 0 if k % 3 == 2 else drawing.one(g, 2, 5)
    numbers = dict(zip(WORDS, (3 + torch.randperm(40, generator=g)[:len(WORDS)]).tolist()))
    chosen = [WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=g)]
    return " ".join(chosen), numbers, count + 2 + (0 if k % 3 == 1 else drawing.one(g, 2, 5))


def encode(text, number, length):
    row = [1] + [number[word] for word in text.split()] + [2]                # START, the words, END
    return row + [0] * (length - len(row))                                   # and PAD behind them


TOKENS = Exercise(
    "5.1", "encode(text, number, length)", draw_sentence, encode, reference=encode, shows=[Tokenizer.row], whole=True,
    praise="right: the network only ever sees such rows of numbers.",
    hints=["text.split() gives the words, number[word] the number of each.",
           "START is 1, END is 2 and PAD is 0; the row has `length` numbers in all.",
           "row = [1] + [number[word] for word in text.split()] + [2]; then fill up with zeros."],
    mistakes=[
        (lambda t, n, m: [n[w] for w in t.split()] + [PAD] * (m - len(t.split())),
         "START and END are missing: [1, words, 2, 0, 0, ...]."),
        (lambda t, n, m: [START] + [n[w] for w in t.split()] + [PAD] * (m - 1 - len(t.split())),
         "END is missing after the last word: what stands there has read the whole sentence."),
        (lambda t, n, m: [START] + [n[w] for w in t.split()] + [PAD] * (m - 2 - len(t.split())) + [END],
         "END comes right after the last word, before the padding."),
        (lambda t, n, m: [START] + [n[w] for w in t.split()] + [END], "fill the row up with PAD, to `length` numbers."),
        (lambda t, n, m: encode(t, n, m) + [PAD, PAD],
         "the row is two too long: START and END count as well."),
        (lambda t, n, m: [PAD] * (m - 2 - len(t.split())) + [START] + [n[w] for w in t.split()] + [END],
         "the padding belongs behind the sentence, not in front of it."),
        (lambda t, n, m: [START] + [n[w] - 3 for w in t.split()] + [END] + [PAD] * (m - 2 - len(t.split())),
         "the words' numbers begin at 3, as 0, 1 and 2 are taken: use number[word] as it is."),
    ])


def draw_reader(g, k):
    """Something that reads n vectors: each vector gathers from some others, a little or much. None, one, some."""
    n, d = drawing.one(g, 5, 8), drawing.one(g, 2, 4)
    if k % 3 == 0:
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        seen[:, drawing.one(g, 1, n - 2)] = False                            # causal, and one of them keeps silent
    else:
        seen = torch.rand(n, n, generator=g) < 0.5
    seen |= torch.eye(n, dtype=torch.bool)
    heads = torch.randn(3, d, d, generator=g)

    def read(x):
        if x.shape != (n, d):
            raise ValueError(f"this one reads vectors of shape ({n}, {d}), not {tuple(x.shape)}")
        q, key, value = (x @ head for head in heads)
        fit = torch.tanh(q @ key.T).masked_fill(~seen, -torch.inf)           # tanh: whoever is seen shows
        return x + (fit.softmax(1)[:, :, None] * value).sum(1)               # a share of 0 adds exactly nothing

    return read, n, d


def by_poking(see):
    """The experiment with another reading of it: see(moved), where moved[i, j]: vector i moved with token j."""
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
        other[j] = torch.randn(d)                                            # token j is another one now
        found[:, j] = (read(other) != before).any(dim=1)
    return found


SEES = Exercise(
    "5.2", "sees(read, n, d)", draw_reader, by_poking(lambda moved: moved), reference=sees, shows=[CausalBlock.forward],
    remark="What gives such a table below the diagonal only: is_causal=True. Your experiment needs no such line to be "
           "seen.",
    praise="right: whoever moves when a token is changed has seen it. Below the diagonal and on it: that is causal.",
    hints=["Make n random vectors and read them. Then change one of them, token j, and read again: which have moved?",
           "Whatever moved has seen token j: that is column j of the table.",
           "found[:, j] = (read(other) != read(x)).any(dim=1)"],
    mistakes=[
        (by_poking(lambda moved: moved.T),
         "rows and columns have changed places: found[i, j] says whether vector i sees token j."),
        (by_poking(torch.logical_not), "the wrong way round: True where the vector moved."),
        (by_poking(lambda moved: moved & ~torch.eye(len(moved), dtype=torch.bool)),
         "a vector moves with its own token, too: the diagonal is True."),
        (lambda read, n, d: torch.ones(n, n, dtype=torch.bool).tril(),
         "that is what a causal reader sees. This one may be another: change tokens one by one, and look."),
        (lambda read, n, d: torch.ones(n, n, dtype=torch.bool),
         "not everybody sees everything: change one token at a time, and look who moves."),
        (by_poking(lambda moved: moved.sum(1)), "that is how many each one sees. Wanted is which: (n, n)."),
    ])


def scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def draw_words(g, k):
    """Places that ask, tokens that answer, and which of those are real: padding behind, none, or anywhere."""
    places, tokens, d = drawing.one(g, 8, 12), drawing.one(g, 4, 7), (6, 3, 10)[k % 3]
    real = torch.arange(tokens) < (tokens if k % 3 == 1 else drawing.one(g, 2, tokens - 1))
    real = real[torch.randperm(tokens, generator=g)] if k % 3 == 2 else real
    places = 1 if k % 3 == 1 else places
    return (2 * torch.randn(places, d, generator=g), *(2 * torch.randn(tokens, d, generator=g) for _ in range(2)), real)


def look(fit, v, real, fill=-torch.inf):
    return fit.masked_fill(~real, fill).softmax(-1) @ v


def cross_attention(q, k, v, real):
    scores = q @ k.T / q.shape[-1] ** 0.5                                    # (places, words)
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ v


CROSS = Exercise(
    "5.3", "cross_attention(q, k, v, real)", draw_words, lambda q, k, v, real: look(scores(q, k), v, real),
    reference=cross_attention, use=with_slopes, trains=True,
    shows=[CrossAttention.queries_keys_values, CrossAttention.weights, CrossAttention.forward],
    praise="right: the places of the picture ask, the words answer, and padding keeps silent.",
    hints=["The same formula as before, but q comes from the picture's places, k and v from the words.",
           "`real` is False where a token is PAD: those scores become minus infinity.",
           "(q @ k.T / q.shape[-1]**0.5).masked_fill(~real, -torch.inf).softmax(-1) @ v"],
    mistakes=[
        (lambda q, k, v, r: scores(q, k).softmax(-1) @ v,
         "places still look at the padding: its scores must become minus infinity."),
        (lambda q, k, v, r: look(scores(q, k), v, ~r), "the mask is the wrong way round: real is True for words."),
        (lambda q, k, v, r: look(scores(q, k), v, r, 0.0),
         "a score of 0 is not \"never\": exp(0) = 1. Set the masked scores to minus infinity."),
        (lambda q, k, v, r: look(q @ k.T, v, r), "divide the scores by the square root of the width."),
        (lambda q, k, v, r: scores(q, k).masked_fill(~r, -torch.inf).softmax(0).nan_to_num() @ v,
         "the softmax runs over the places; each place must spread its attention over the words (dim=-1)."),
        (lambda q, k, v, r: scores(q, k).masked_fill(~r, -torch.inf).softmax(0) @ v,
         "the softmax runs over the places; each place must spread its attention over the words (dim=-1)."),
        (lambda q, k, v, r: (scores(q, k).softmax(-1) * r) @ v,
         "masking after the softmax leaves weights that do not sum to 1. Mask the scores first."),
        (lambda q, k, v, r: look(scores(q, v), k, r), "keys and values have changed places."),
        (lambda q, k, v, r: look(scores(q, k), torch.eye(len(k)), r), "those are the weights; multiply them with v."),
    ])


def draw_captions(g, k):
    """Captions of which some are to be hidden, and "nothing". In turn: the first among them, not the first, none."""
    count, length = drawing.one(g, 5, 7), drawing.one(g, 3, 4) if k % 2 else 8
    tokens = torch.randint(3, 40, (count, length), generator=g)
    hidden = torch.zeros(count, dtype=torch.bool)
    hidden[1 + torch.randperm(count - 1, generator=g)[:0 if k % 3 == 2 else drawing.one(g, 2, 3)]] = True
    hidden[0] = k % 3 == 0
    return tokens, hidden, torch.tensor([START, END] + [PAD] * (length - 2))


def hide(tokens, hidden, nothing):
    return torch.where(hidden[:, None], nothing, tokens)


HIDE = Exercise(
    "5.4", "hide(tokens, hidden, nothing)", draw_captions, hide, reference=hide, shows=[training.Trainer.draw],
    whole=True,
    praise="right, one by one: in every batch some pictures are learned with their caption and some without.",
    hints=["hidden is (B,), True where the caption is to go; tokens is (B, L).",
           "torch.where(condition, a, b) takes a where the condition holds; hidden[:, None] fits a whole row.",
           "torch.where(hidden[:, None], nothing, tokens)"],
    mistakes=[
        (lambda x, h, n: torch.where(h.any(), n, x),
         "that hides the whole batch as soon as one is to be hidden. A public course has this bug: hide row by row."),
        (lambda x, h, n: n.expand(len(x), -1),
         "that hides all captions; only the rows where `hidden` is True should go."),
        (lambda x, h, n: torch.where(h[:1, None], n, x),
         "you asked only the first picture's dice, for the whole batch: use all of `hidden`."),
        (lambda x, h, n: hide(x, ~h, n), "the wrong ones are hidden: True means hide."),
        (lambda x, h, n: x.masked_fill(h[:, None], 0),
         "zeros are padding, not a sentence: a hidden caption becomes `nothing`, START END PAD PAD ..., which is read "
         "and learned."),
        (lambda x, h, n: x * ~h[:, None],
         "zeros are padding, not a sentence: a hidden caption becomes `nothing`, START END PAD PAD ..., which is read "
         "and learned."),
        (lambda x, h, n: x, "nothing is hidden: the rows where `hidden` is True should become `nothing`."),
        (lambda x, h, n: x[~h], "hidden captions are replaced, not left out: the pictures stay in the batch."),
    ])


def draw_batch(g, k):
    """Rows of tokens, START words END and padding, cut where the longest ends; behind, in front, or anywhere.

    And the numbers of places that look at them: questions, keys and values.
    """
    lengths = [9, *(drawing.one(g, 3, 8) for _ in range(1 + k % 3))]
    rows = [[START, *(drawing.one(g, 3, 40) for _ in range(n - 2)), END] + [PAD] * (9 - n) for n in lengths]
    tokens = torch.tensor(rows)[torch.randperm(len(rows), generator=g)]
    tokens = (tokens, tokens.flip(1), tokens[:, torch.randperm(9, generator=g)])[k % 3]
    places, words, worth = (torch.randn(len(rows), n, 6, generator=g) for n in (5, 9, 9))
    return tokens, 2 * places, 2 * words, worth


def looked_through(mask, tokens, places, words, worth):
    """What places of a picture gather from the tokens through the mask, as in the network."""
    real = mask(tokens)
    if real is None or real is ...:
        return real
    real = torch.as_tensor(real)
    if real.shape != tokens.shape:
        return real
    return torch.nn.functional.scaled_dot_product_attention(places, words, worth, attn_mask=real[:, None])


def mended_mask(tokens):
    return tokens != 0                                                       # 0 is PAD


MENDED = Exercise(
    "5.5", "mended_mask(tokens)", draw_batch, mended_mask, reference=mended_mask, use=looked_through,
    praise="mended: a picture no longer depends on who else is in the batch.",
    hints=["Which tokens stand behind END?", "PAD is 0. Real is what is not PAD: tokens != 0, True or False."],
    mistakes=[
        (lambda x: torch.ones(x.shape, dtype=torch.bool), AS_IT_WAS),
        (lambda x: x == PAD, "the wrong way round: True means real."),
        (lambda x: x > END, "START and END are real, too: the network has learned to read them. Only PAD is not."),
        (lambda x: (x != PAD) & (x != END),
         "END is real, too: it has read the whole sentence. Only PAD is not."),
        (lambda x: (x != PAD) & (x != START), "START is real, too: the network has learned to read it."),
        (lambda x: (x != PAD).float(),
         "those are numbers, 1 and 0. Attention *adds* such a mask to its scores, so padding is still read. Only True "
         "and False leave something out: tokens != 0 is that already."),
        (lambda x: (x != PAD).all(0, keepdim=True).expand_as(x),
         "now all rows end where the shortest does: each sentence has its own end."),
    ])

EXERCISES = [TOKENS, SEES, CROSS, HIDE, MENDED]
