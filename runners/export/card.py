"""What should whoever gets a model know of it? Its card, written from the record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runners.text.corpus import Corpus
from runners.text.documents import DEFAULT_PACKAGE
from search.record.numbers import configuration_numbers
from search.record.trial import Outcome
from search.record.trial_records import TrialRecord
from spaces.arms.contract import shape_in_words

FRONT_MATTER = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- isoflop
---
"""


def model_card(
    record: TrialRecord,
    corpus: Corpus,
    *,
    is_native: bool,
    laws: Sequence[str],
    scores: Mapping[str, float],
) -> str:
    """Markdown with the front matter that model hubs read."""
    outcome = record.outcome
    assert outcome is not None
    sections = {
        "Model": _model(record, is_native=is_native),
        "Data": _data(corpus),
        "Training": _training(record, outcome),
        "Result": _result(outcome, scores),
        "Law": list(laws) or ["No law was fitted to its sweep when it was exported."],
        "Caveats": _caveats(record, outcome),
        "Use": _use(is_native=is_native),
    }
    body = "\n\n".join(f"## {name}\n\n" + "\n".join(lines) for name, lines in sections.items())
    return f"{FRONT_MATTER}\n# {record.proposal.arm} {record.config_hash}\n\n{body}\n"


def _model(record: TrialRecord, *, is_native: bool) -> list[str]:
    architecture = record.proposal.config.architecture
    numbers = configuration_numbers(record.proposal)
    parts = {
        name.removeprefix("parameters_"): value
        for name, value in numbers.items()
        if name.startswith("parameters_") and value
    }
    code = "a class of transformers" if is_native else "the code in this folder (read it first)"
    return [
        f"- Arm `{architecture.arm}`: {shape_in_words(architecture)}; loaded by {code}.",
        f"- {numbers['parameters']:,} parameters, {numbers['active_parameters']:,} of them active: "
        + ", ".join(f"{name} {value:,}" for name, value in parts.items())
        + ".",
        f"- Vocabulary {architecture.vocab_size:,}, context {architecture.context_length:,}.",
        f"- Trial `{record.config_hash}` of the sweep `{record.sweep}`; its configuration and "
        f"outcome are whole in `isoflop.json`.",
    ]


def _data(corpus: Corpus) -> list[str]:
    is_default = corpus.source.startswith(f"{DEFAULT_PACKAGE} ")
    licence = (
        "public domain in the United States (addresses of presidents)"
        if is_default
        else "not in the record; whoever passes this model on says under which licence the text is"
    )
    return [
        f"- Text: {corpus.describe_sizes().removeprefix('text: ')}.",
        f"- Licence of the text: {licence}.",
        f"- Tokenizer `{corpus.tokenizer}`; fingerprint of text, split and tokenizer "
        f"`{corpus.fingerprint}`.",
        *(f"- {note}" for note in corpus.notes),
    ]


def _training(record: TrialRecord, outcome: Outcome) -> list[str]:
    recipe, convention = record.proposal.config.training, record.proposal.budget.convention
    flops = ", ".join(f"{name} {value:.6g}" for name, value in outcome.train_flops.items())
    return [
        f"- Training FLOPs, 2 per multiply-add, by convention: {flops}; its budget, "
        f"{record.proposal.budget.train_flops:.4g}, is in the convention `{convention}`.",
        f"- {outcome.tokens:,} tokens ({outcome.epochs or 0:.3g} epochs), {outcome.steps:,} steps "
        f"of {recipe.batch_sequences} sequences.",
        f"- AdamW, peak learning rate {recipe.learning_rate:.4g} ({recipe.schedule}), weight decay "
        f"{recipe.weight_decay:g}, parametrization {recipe.parametrization.rule.name}, "
        f"{recipe.precision}.",
        f"- Device: {outcome.device or 'not recorded'}; versions: "
        + ", ".join(f"{name} {value}" for name, value in outcome.versions.items())
        + ".",
    ]


def _result(outcome: Outcome, scores: Mapping[str, float]) -> list[str]:
    lines = [f"- Validation loss: {outcome.loss_nats:.4f} nats per token."]
    if outcome.bits_per_byte is not None:
        lines.append(f"- Of the same text: {outcome.bits_per_byte:.4f} bits per byte.")
    for name, layers in outcome.readouts.items():
        lines.append(f"- {name} by layer: " + ", ".join(f"{value:.3f}" for value in layers))
    return lines + [f"- {name}: {value:.4f}" for name, value in scores.items()]


def _caveats(record: TrialRecord, outcome: Outcome) -> list[str]:
    numbers = configuration_numbers(record.proposal)
    return [
        "- A model of a study of scaling, neither tuned nor aligned for any use.",
        f"- One seed ({record.proposal.config.init_seed}); "
        f"{numbers['tokens_per_parameter']:.1f} tokens a parameter.",
        *(f"- {warning}" for warning in outcome.warnings),
        *([f"- Set aside by its sweep: {record.set_aside}"] if record.set_aside else []),
    ]


def _use(*, is_native: bool) -> list[str]:
    more = "" if is_native else ", trust_remote_code=True"
    lines = [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("."{more})',
        f'tokenizer = AutoTokenizer.from_pretrained("."{more})',
        "```",
        "",
        "Every document of the training text was followed by the separator; start with it, as with "
        "any beginning-of-text token.",
    ]
    if not is_native:
        lines.append("The model keeps no cache of keys and values: `use_cache=False`, as is set.")
    return lines
