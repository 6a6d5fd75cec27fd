"""A search for wrong neighbours of the right answers: mechanical mutants of each reference, every one to be rejected.

A mutant is one small change of the reference's syntax tree: another operator, constant, axis, comparison or method,
arguments in another order, a term or a statement left out. One that passes must be shown to be no mistake at all: to
give what the right answer gives on many fresh inputs, wilder than those that the exercise draws.
"""

import ast
import copy
import inspect
import itertools
import random
import textwrap

import pytest
import torch

from diffusion_lessons.exercises import EXERCISES, checking
from diffusion_lessons.exercises.checking import copies, check_attempt, leaves
from diffusion_lessons.schedules import Schedule, make_schedule

ALL = list(EXERCISES.values())
SAMPLE = 4                  # mutants of each exercise in every test run; the long one takes them all
ENOUGH = 30                 # how many there should be at least, even of a short reference
TRIES = 5                   # checks that a mutant must pass: one that draws its own numbers may be lucky once
WILD = 40                   # inputs on which a mutant that passed must agree

OPERATORS = {ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add, ast.Mult), ast.Mult: (ast.Div, ast.Add),
             ast.Div: (ast.Mult, ast.Sub), ast.FloorDiv: (ast.Mult, ast.Mod), ast.Pow: (ast.Mult, ast.Add),
             ast.MatMult: (ast.Mult,)}
COMPARISONS = {ast.Gt: (ast.Lt, ast.GtE), ast.GtE: (ast.Lt, ast.Eq), ast.LtE: (ast.Gt, ast.Eq), ast.Lt: (ast.Gt,),
               ast.NotEq: (ast.Eq, ast.Gt), ast.Eq: (ast.NotEq,)}
# Names of functions and methods that are taken for one another.
NAMES = {"sin": "cos", "cos": "sin", "mean": "sum", "sum": "mean", "sqrt": "abs", "std": "var", "var": "std",
         "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any", "softplus": "relu", "logsigmoid": "tanh",
         "randn": "rand", "randn_like": "rand_like", "zeros": "ones", "ones": "zeros", "cumprod": "cumsum",
         "square": "abs", "eps": "x0", "x0": "eps", "alpha_bar": "beta", "step": "zero_grad", "softmax": "sigmoid",
         "pdist": "cdist", "round": "int", "opt_d": "opt_g", "opt_g": "opt_d", "triu": "tril", "stack": "cat"}
NO_CHANGE = {"detach", "float", "item", "clone"}      # dropping these changes no number; what they are for, others test


def mutants(function):
    """[(source, function)] with one change each; where that gives few, with more changes, up to ENOUGH."""
    source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    found = last = neighbours(source)
    while last and len(found) < ENOUGH:
        last = sorted({text for one in last for text in neighbours(one)} - {source, *found})
        random.Random(function.__name__).shuffle(last)
        found = [*found, *last[:ENOUGH - len(found)]]
    return [(text, build(text, function)) for text in found]


def neighbours(source):
    """All sources that are one change away, in the order of the tree."""
    tree, found = ast.parse(source), []
    for place in range(len(list(ast.walk(tree)))):
        for number in itertools.count():
            other = copy.deepcopy(tree)
            changed = changes(list(ast.walk(other))[place])
            if number >= len(changed):
                break
            changed[number]()
            found.append(ast.unparse(ast.fix_missing_locations(other)))
    return [text for text in dict.fromkeys(found) if text != source]


def changes(node):
    """What may be done to this node, as functions that do it in place."""
    def put(**fields):
        return lambda: [setattr(node, name, value) for name, value in fields.items()]

    def become(other):
        def do():
            node.__class__, node.__dict__ = other.__class__, other.__dict__
        return do

    found = []
    if isinstance(node, ast.BinOp):
        found += [put(op=op()) for op in OPERATORS.get(type(node.op), ())]
        found += [become(node.left), become(node.right), put(left=node.right, right=node.left)]
    elif isinstance(node, ast.Compare):
        found += [put(ops=[op()]) for op in COMPARISONS.get(type(node.ops[0]), ())]
        found += [put(left=node.comparators[0], comparators=[node.left])]
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        found += [put(value=value) for value in (node.value + 1, node.value - 1, 2 * node.value, -node.value)]
    elif isinstance(node, ast.UnaryOp):
        found += [become(node.operand)]
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if isinstance(node.func, ast.Attribute) and name not in NO_CHANGE and not is_module(node.func.value):
            found += [become(node.func.value)]                     # x.sqrt() -> x
        for k in range(1, len(node.args)):
            found += [put(args=[*node.args[:k - 1], node.args[k], node.args[k - 1], *node.args[k + 1:]])]
        if len(node.args) >= 2:
            found += [put(args=node.args[:-1])]
        found += [put(keywords=node.keywords[1:])] if node.keywords else []
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        found += [put(attr=NAMES[node.attr])]
    elif isinstance(node, ast.Name) and node.id in NAMES:
        found += [put(id=NAMES[node.id])]
    elif isinstance(node, ast.Return) and node.value:
        found += [put(value=ast.UnaryOp(ast.USub(), node.value))]
        found += [put(value=ast.BinOp(node.value, op(), ast.Constant(2))) for op in (ast.Mult, ast.Add, ast.Pow)]
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        found += [put(slice=ast.Tuple(node.slice.elts[::-1], ast.Load()))]                   # x[:, None] -> x[None, :]
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and not isinstance(node.slice, ast.Slice):
        found += [put(slice=ast.BinOp(node.slice, op(), ast.Constant(1))) for op in (ast.Add, ast.Sub)]
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if isinstance(block, list) and len(block) > 1:
            found += [put(**{field: block[:k] + block[k + 1:]}) for k in range(len(block))]
    return found


def is_module(node):
    return isinstance(node, ast.Name) and node.id in ("torch", "F", "math") or (
        isinstance(node, ast.Attribute) and is_module(node.value))


def build(text, function):
    """The function of that source, among the names that the original sees."""
    space = dict(function.__globals__)
    exec(compile(text, "a mutant", "exec"), space)
    return space[function.__name__]


def wilder(case, seed):
    """The input again, changed in kind: other schedules and times, fewer pictures, larger or smaller numbers."""
    chance, case = random.Random(seed), copies(case)
    schedules = [a for a in case if isinstance(a, Schedule)]
    T = schedules[0].T if schedules else None
    if T and chance.random() < 0.5:
        shorter = make_schedule(chance.choice(["linear", "cosine"]), T)     # as long, so that all times stay in it
        case = [shorter if isinstance(a, Schedule) else a for a in case]
    scale = chance.choice([0.1, 1.0, 3.0])
    sizes = {len(a) for a in leaves(case) if a.ndim == 4}
    keep = chance.randint(2, min(sizes)) if len(sizes) == 1 and min(sizes) > 2 and chance.random() < 0.5 else None
    wild = []
    for a in case:
        if isinstance(a, torch.Tensor) and a.ndim and keep and len(a) in sizes:
            a = a[:keep]
        if isinstance(a, torch.Tensor) and a.is_floating_point() and a.ndim == 4 and a.min() < 0:    # no mask
            a = scale * a
        wild.append(a)
    return wild


def agrees(exercise, mutant, wild=WILD):
    """Whether a mutant gives what the right answer gives, wherever that gives anything, on many wild inputs."""
    generator = torch.Generator().manual_seed(1)
    tried = 0
    for k in range(wild):
        case = exercise.sample(generator, k)
        if not callable(case[0]):        # what an experiment asks belongs to what it was drawn with
            case = wilder(case, k)
        try:
            wanted = exercise.run(exercise.answer, *copies(case))
        except (ValueError, RuntimeError, IndexError):
            continue
        tried += 1
        try:
            result = exercise.run(mutant, *copies(case))
        except Exception:
            return False
        if exercise.wrong:
            if exercise.wrong(result, *case):
                return False
        elif not exercise.agrees(result, wanted) and not any(
                exercise.agrees(result, exercise.run(other, *copies(case))) for other in exercise.alternatives):
            return False
    return tried > wild // 2


def search(exercise, most=None, wild=WILD):
    """(how many were tried, how many passed, the sources of those that passed and are not equal)"""
    found = mutants(exercise.reference)
    if most:
        found = random.Random(exercise.id).sample(found, most)
    passed = [(text, mutant) for text, mutant in found
              if all(check_attempt(exercise, mutant).state == "right" for _ in range(TRIES))]
    return len(found), len(passed), [text for text, mutant in passed if not agrees(exercise, mutant, wild)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(checking, "SECONDS", 5.0)


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
def test_no_mutant_of_a_right_answer_is_right(exercise):
    tried, _, survivors = search(exercise, SAMPLE, wild=12)
    assert tried == SAMPLE
    assert survivors == []


@pytest.mark.long
@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
def test_no_mutant_at_all_of_a_right_answer_is_right(exercise, capsys):
    tried, equal, survivors = search(exercise)
    with capsys.disabled():
        print(f"\n{exercise.id}: {tried} mutants, {equal - len(survivors)} of them equal", end=" ")
    assert tried >= ENOUGH
    assert survivors == []


def test_the_search_finds_a_mistake_that_an_exercise_lets_pass():
    """What is wrong at t = T only: an exercise that never drew that would call it right."""
    def both_ends_wrong(x0, t, eps, schedule):
        return EXERCISES["2.1"].reference(x0, t, eps, schedule) * (1 + (t == schedule.T)).reshape(-1, 1, 1, 1)

    assert not agrees(EXERCISES["2.1"], both_ends_wrong)
    assert agrees(EXERCISES["2.1"], EXERCISES["2.1"].reference)
