"""diffusion-lessons leaderboard: the samplers in a folder of capstone notebooks, ranked."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_lessons.cli.grade import NOT_ISOLATED, ending_in_order
from diffusion_lessons.cli.options import check_out, file_name, whole

SUMMARY = "rank the samplers in a folder of capstone notebooks"
DESCRIPTION = ("Rank the samplers in a folder of capstone notebooks, and write a table (CSV). Learners' functions run "
               "in processes of their own; the network's calls are made and counted here.")
EXAMPLES = """examples:
  all notebooks in a folder and below; the table is capstone/leaderboard.csv
    {prog} leaderboard capstone
  with noise and labels that nobody could have practised on
    {prog} leaderboard capstone --seed 271828

For 1, 2, 4 and 8 calls of the network:
quality  accuracy * recall / (1 + Frechet distance)
score    100 times the mean quality over the four; the mean of three seeds
spread   the highest minus the lowest score of a seed
rank     shared (1=) unless one is ahead of the other by more than the spread
         of its lead over the seeds
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", type=Path, help="where the notebooks are, in it or below")
    parser.add_argument("--out", type=file_name(".csv"), metavar="PATH",
                        help="the table (default FOLDER/leaderboard.csv)")
    parser.add_argument("--seed", type=whole("seed", 0, 2**32 - 3), default=1001,
                        help="the first of three seeds of the noise and the labels (default 1001)")


def run(options: argparse.Namespace) -> int:
    """Run all samplers, write the table after each, and print the leaderboard."""
    from diffusion_lessons.evaluation.capstone import Contest
    from diffusion_lessons.grading import leaderboard

    contest = Contest(seeds=range(options.seed, options.seed + 3))
    out = options.out or options.folder / "leaderboard.csv"
    entries = leaderboard.entries(options.folder, contest, progress=True)
    check_out(out)
    found = leaderboard.baselines(contest)
    with ending_in_order():
        for entry in entries:
            found.append(entry)
            leaderboard.write(found, contest, out)
    print(leaderboard.summary(found, contest))
    if any(entry.isolated == "not isolated" for entry in found):
        print(NOT_ISOLATED)
    print(f"{len(found)} rows written to {out}")
    return 0
