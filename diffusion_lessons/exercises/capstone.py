"""The capstone in the notebook: `compete` runs a learner's sampler and shows its figures.

The leaderboard finds the sampler by this call.
"""

from IPython.display import display

from diffusion_lessons.evaluation.capstone import PRACTICE, Contest, Sampler, Score, table
from diffusion_lessons.exercises.checking import describe
from diffusion_lessons.exercises.showing import Box
from diffusion_lessons.exercises.stubs import is_stub


def compete(sampler: Sampler, contest: Contest = PRACTICE) -> dict[str, Score]:
    """Run your sampler with the practice seed and show its figures. It never stops the notebook.

    sampler: sampler(denoiser, x_T, steps, schedule) -> pictures like x_T;  -> {"my_sampler": Score}, or {} without one
    """
    if not callable(sampler) or is_stub(sampler):
        display(Box("not tried", "my_sampler is still empty: the leaderboard shows it without a score."))
        return {}
    try:
        score = contest.score(sampler)
    except Exception as error:    # it is the learner's
        note = f" ({'; '.join(error.__notes__)})" if getattr(error, "__notes__", None) else ""
        display(Box("not yet", describe(error, sampler).message + note))
        return {}
    print(table({"my_sampler": score}))
    return {"my_sampler": score}
