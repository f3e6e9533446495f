"""The ``isoflop`` command: which verb is asked for, and how an error reaches a person.

A verb's module is imported only when that verb is run, so that ``isoflop --help`` answers at once.
Every verb module defines ``run(argv: list[str]) -> int``, which returns the exit code.
"""

from __future__ import annotations

import importlib
import os
import sys

VERBS = {
    "init": "a commented experiment for your text, device and hours; a JSON Schema for editors",
    "plan": "what would run: shapes, parameters, FLOPs, tokens, steps; what is reused and why",
    "next": "the runs that come next, what each does to a law's intervals, and when a question is "
    "answered",
    "sweep": "run an experiment, or go on with it: the same command resumes",
    "status": "what runs, what failed and why, FLOPs spent and counted",
    "best": "the best configurations per budget, and the link that opens them in the MLflow UI",
    "ablation": 'what each choice does beside the base, seed by seed (search.goal = "ablation")',
    "fit": "scaling laws with intervals and certificates; also on any table: --table points.csv",
    "report": "one HTML page of a sweep that needs no network: answer, figures, laws, checklist",
    "evaluate": "what a trained run knows: bits per byte and multiple choice, from local files",
    "export": "a run as a Hugging Face folder (--hf); the best one into MLflow's registry (--best)",
    "sync": "the runs of a home to an MLflow server (--to URI), again and again without doubles",
    "gates": "where a trained model sends the tokens of a tagged text, with intervals",
    "intervene": "what a route is worth: the loss where tokens are forced, less that of controls",
    "skip": "loss against FLOPs where tokens skip the deep path or stop looping, at inference",
    "flops": "the FLOP certificate of one architecture",
    "doctor": "whether ledger, MLflow and files agree; rebuilds what is derived",
    "ui": "the MLflow UI of this home on 127.0.0.1",
}
"""Verb to one-line summary; the verb's module is ``experiments.verbs.<verb>``."""

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_REQUEST, EXIT_INTERRUPTED = 0, 1, 2, 130


def usage() -> str:
    """The top-level help text."""
    verbs = "\n".join(f"  {verb:<9} {summary}" for verb, summary in VERBS.items())
    return f"""usage: isoflop VERB [...]

Architectures that all cost the same, searched; scaling laws that can be trusted.

verbs:
{verbs}

Every verb takes --help, --home DIR (default ./runs, or ISOFLOP_HOME), --json, --debug, and
--arms-from FILE (a Python file with arms of your own).
Results go to standard output, talk to standard error. Exit codes: 0 done, 1 something failed,
2 the request was wrong, 130 interrupted and saved."""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one verb and return its exit code; errors become one message on standard error."""
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return EXIT_DONE
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        print(f"isoflop: unknown verb {verb!r}; use one of {', '.join(VERBS)}", file=sys.stderr)
        return EXIT_WRONG_REQUEST
    from search.record.redaction import redact
    from spaces.errors import RequestError

    try:
        if any(word.startswith("--arms-from") for word in rest):
            from experiments.arm_options import load_named_arms

            rest = load_named_arms(rest)
        module = importlib.import_module(f"experiments.verbs.{verb}")
        return int(module.run(rest))
    except RequestError as error:
        if debug:
            raise
        print(redact(f"isoflop {verb}: {error}"), file=sys.stderr)
        return EXIT_WRONG_REQUEST
    except KeyboardInterrupt:
        print(f"isoflop {verb}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        message = redact(f"isoflop {verb}: {kind}: {error}")
        print(f"{message} (--debug shows where)", file=sys.stderr)
        return EXIT_FAILED
