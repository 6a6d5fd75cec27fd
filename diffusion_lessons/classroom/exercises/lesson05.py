"""Exercises of lesson 05: the sentence goes in."""

import torch
import torch.nn.functional as F

from diffusion_lessons import training
from diffusion_lessons.classroom.exercises import drawing
from diffusion_lessons.classroom.exercises.judging import AS_IT_WAS, Exercise
from diffusion_lessons.models.text import END, PAD, START, CausalBlock, CrossAttention, Tokenizer

WORDS = ("a", "cat", "frog", "green", "on", "snow", "stilts", "the")
NUMBERS = {word: k + 3 for k, word in enumerate(WORDS)}


def draw_sentence(g, k):
    """Two to five words, never filling the row, and their numbers."""
    length = drawing.one(g, 8, 11)
    chosen = torch.randperm(len(WORDS), generator=g)[:drawing.one(g, 2, 5)].tolist()
    return " ".join(WORDS[i] for i in chosen), dict(NUMBERS), length


def encode(text, number, length):
    row = [1] + [number[word] for word in text.split()] + [2]                # START, the words, END
    return row + [0] * (length - len(row))                                   # and PAD behind them


TOKENS = Exercise(
    "5.1", "encode(text, number, length)", draw_sentence, encode, reference=encode, shows=[Tokenizer.row],
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


def draw_qkv(g, k):
    n = (4, 5, 7)[drawing.one(g, 0, 2)]    # not 6, the width
    return tuple(2 * torch.randn(n, 6, generator=g) for _ in range(3))


def masked(fit, v, fill=-torch.inf, diagonal=0):
    later = torch.ones(len(fit), len(fit), dtype=torch.bool).triu(1 + diagonal)
    return fit.masked_fill(later, fill).softmax(-1) @ v


def scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


def causal_attention(q, k, v):
    n = len(q)
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    scores = q @ k.T / q.shape[-1] ** 0.5                                    # (n, n): row i asks, column j answers
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


CAUSAL = Exercise(
    "5.2", "causal_attention(q, k, v)", draw_qkv,
    lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0],
    reference=causal_attention, shows=[CausalBlock.forward],
    remark="F.scaled_dot_product_attention(q, k, v, is_causal=True) is the whole exercise in one fast call.",
    praise="right: every token gathers from itself and from those before it, and from nobody later.",
    hints=["scores = q @ k.T / sqrt(width): row i says how well token i's question fits each key.",
           "Before the softmax, set every score above the diagonal to minus infinity: "
           "torch.ones(n, n, dtype=torch.bool).triu(1) is True there.",
           "scores.masked_fill(later, -torch.inf).softmax(-1) @ v"],
    mistakes=[
        (lambda q, k, v: scores(q, k).softmax(-1) @ v, "every token still sees the later ones: mask them out."),
        (lambda q, k, v: masked(q @ k.T, v), "divide the scores by the square root of the width."),
        (lambda q, k, v: masked(q @ k.T / q.shape[-1], v), "divide by the square root of the width, not by the width."),
        (lambda q, k, v: masked(q @ k.T / len(q) ** 0.5, v),
         "it is the width of the vectors, q.shape[-1], whose root divides the scores, not the number of tokens."),
        (lambda q, k, v: masked(scores(q, k), v, fill=0.0),
         "a score of 0 is not \"never\": exp(0) = 1. Set the masked scores to minus infinity."),
        (lambda q, k, v: masked(scores(q, k), v, diagonal=-1),
         "a token must see itself too: mask only what is above the diagonal (triu(1)). The first token has nobody "
         "else, and its softmax over nothing is NaN."),
        (lambda q, k, v: masked(scores(q, k), v, diagonal=1), "each token sees one place too far into the future."),
        (lambda q, k, v: masked(scores(q, k).flip(0, 1), v.flip(0)).flip(0),
         "the mask is the wrong way round: tokens see the future instead of the past."),
        (lambda q, k, v: masked(scores(k, q), v), "questions and keys have changed places: q @ k.T."),
        (lambda q, k, v: scores(q, k).softmax(-1).tril() @ v,
         "masking after the softmax leaves rows that do not sum to 1. Mask the scores first."),
        (lambda q, k, v: masked(scores(q, k), torch.eye(len(q))), "those are the weights; multiply them with v."),
    ])


def draw_words(g, k):
    """Places that ask, tokens that answer, and which of those are real: at least two, at least one not."""
    places, tokens = drawing.one(g, 8, 12), drawing.one(g, 4, 7)
    real = torch.arange(tokens) < drawing.one(g, 2, tokens - 1)
    return (2 * torch.randn(places, 6, generator=g), *(2 * torch.randn(tokens, 6, generator=g) for _ in range(2)), real)


def look(fit, v, real, fill=-torch.inf):
    return fit.masked_fill(~real, fill).softmax(-1) @ v


def cross_attention(q, k, v, real):
    scores = q @ k.T / q.shape[-1] ** 0.5                                    # (places, words)
    return scores.masked_fill(~real, -torch.inf).softmax(-1) @ v


CROSS = Exercise(
    "5.3", "cross_attention(q, k, v, real)", draw_words, lambda q, k, v, real: look(scores(q, k), v, real),
    reference=cross_attention,
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
    tokens = torch.randint(3, 40, (6, 5), generator=g)
    hidden = torch.zeros(6, dtype=torch.bool)
    hidden[1 + torch.randperm(5, generator=g)[:0 if k % 3 == 2 else drawing.one(g, 2, 3)]] = True
    hidden[0] = k % 3 == 0
    return tokens, hidden, torch.tensor([START, END, PAD, PAD, PAD])


def hide(tokens, hidden, nothing):
    return torch.where(hidden[:, None], nothing, tokens)


HIDE = Exercise(
    "5.4", "hide(tokens, hidden, nothing)", draw_captions, hide, reference=hide, shows=[training.Trainer.draw],
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
    """Rows of tokens, START words END and padding, of different lengths, cut where the longest ends."""
    lengths = [7, *(drawing.one(g, 3, 6) for _ in range(3))]
    rows = [[START, *(drawing.one(g, 3, 40) for _ in range(n - 2)), END] + [PAD] * (7 - n) for n in lengths]
    return (torch.tensor(rows)[torch.randperm(4, generator=g)],)


def mended_mask(tokens):
    return tokens != 0                                                       # 0 is PAD


MENDED = Exercise(
    "5.5", "mended_mask(tokens)", draw_batch, mended_mask, reference=mended_mask,
    praise="mended: a picture no longer depends on who else is in the batch.",
    hints=["Which tokens stand behind END?", "PAD is 0. Real is what is not PAD: tokens != 0."],
    mistakes=[
        (lambda x: torch.ones(x.shape, dtype=torch.bool), AS_IT_WAS),
        (lambda x: x == PAD, "the wrong way round: True means real."),
        (lambda x: x > END, "START and END are real, too: the network has learned to read them. Only PAD is not."),
        (lambda x: (x != PAD) & (x != END),
         "END is real, too: it has read the whole sentence. Only PAD is not."),
        (lambda x: (x != PAD) & (x != START), "START is real, too: the network has learned to read it."),
        (lambda x: (x != PAD).all(0, keepdim=True).expand_as(x),
         "now all rows end where the shortest does: each sentence has its own end."),
    ])

EXERCISES = [TOKENS, CAUSAL, CROSS, HIDE, MENDED]
