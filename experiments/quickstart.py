"""The main job from one command: sweep, leaderboard, law, figure, and what to type next."""

from __future__ import annotations

import sys

from experiments.cli import run
from experiments.command import default_home, talk

NEXT = """
What next?
  isoflop ui                                 the runs in your browser (then open the link above)
  isoflop best quickstart --top 0            every result
  isoflop sweep quickstart --trials 60       twenty more trials; nothing runs twice
  isoflop plan my_experiment.toml            your own question: copy experiments/quickstart.toml
  isoflop fit --table points.csv --law chinchilla    a law of your own table"""


def main() -> int:
    """Run the quickstart in the default home; the exit code is the first that is not 0."""
    talk(f"quickstart: dual-path and ordinary models at four FLOP budgets, into {default_home()}")
    for words in (["sweep", "quickstart"], ["fit", "quickstart"]):
        code = run([*words, *sys.argv[1:]])
        if code:
            return code
    print(NEXT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
