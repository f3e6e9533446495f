"""Do forced routes do what a model made by hand does, and nothing where they change nothing?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from runners.probes.conllu import read_conllu
from runners.probes.forcing import Force, forced_hidden, read_force
from runners.probes.interventions import SCHEMA, Interventions
from runners.probes.windows import TaggedWindows, tagged_windows
from runners.text.tokenizers import ByteTokenizer
from spaces.errors import RequestError
from spaces.model import LanguageModel
from tests.runners.small import small_architecture
from tests.runners.test_gate_probes import TEXT, written

NOTHING = Force()


def routing_model(arm: str = "dual", **changes: object) -> LanguageModel:
    """A model whose gates and routers depend on the token."""
    model = LanguageModel(small_architecture(arm, **changes), seed=4).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate.linear" in name or "router" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return model


def some_tokens(num_sequences: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (num_sequences, 16), generator=torch.Generator().manual_seed(2))


def set_gates(model: LanguageModel, scores: list[float]) -> None:
    """The same gates for every token, by the biases alone."""
    with torch.no_grad():
        for layer in model.layers:
            layer.gate.linear.weight.zero_()
            layer.gate.linear.bias.copy_(torch.tensor(scores).logit())


@pytest.mark.parametrize(
    ("arm", "changes"),
    [
        ("dual", {}),
        ("dual", {"loop_output": "final"}),
        ("dual", {"gate_mode": "fixed", "loop_output": "average"}),
        ("loop", {}),
        ("standard", {}),
    ],
)
def test_without_a_force_the_model_is_itself(arm: str, changes: dict[str, object]) -> None:
    model, tokens = routing_model(arm, **changes), some_tokens()
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    found = forced_hidden(model, tokens, chosen, NOTHING)
    with torch.no_grad():
        torch.testing.assert_close(found, model.hidden(tokens), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("path", "scores"), [("deep", [0.7, 0.0]), ("close-deep", [0.0, 0.4])])
def test_forced_gates_are_those_of_a_model_that_has_them(path: str, scores: list[float]) -> None:
    model, tokens = routing_model(), some_tokens()
    set_gates(model, [0.3, 0.4])
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    found = forced_hidden(model, tokens, chosen, read_force(path, model))
    set_gates(model, scores)
    with torch.no_grad():
        torch.testing.assert_close(found, model.hidden(tokens), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("arm", ["dual", "loop"])
def test_a_fixed_number_of_loops_is_that_of_a_router_that_stops_there(arm: str) -> None:
    model, tokens = routing_model(arm), some_tokens()
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    found = forced_hidden(model, tokens, chosen, read_force("loops=1", model))
    with torch.no_grad():
        for layer in model.layers:
            layer.deep.router.weight.zero_()
            layer.deep.router.bias.fill_(80.0)
        torch.testing.assert_close(found, model.hidden(tokens), rtol=1e-12, atol=1e-12)


def test_a_force_changes_chosen_tokens_in_chosen_layers_and_what_looks_at_them() -> None:
    model, tokens = routing_model(), some_tokens(1)
    chosen = torch.zeros_like(tokens, dtype=torch.bool)
    chosen[0, 6] = True
    force = read_force("deep", model, layers=[1])
    changed = forced_hidden(model, tokens, chosen, force) - model.hidden(tokens)
    assert changed[0].abs().amax(-1).nonzero().flatten().tolist() == [6]
    everywhere = forced_hidden(model, tokens, chosen, read_force("deep", model))
    moved = (everywhere - model.hidden(tokens))[0].abs().amax(-1)
    assert moved[:6].max() < 1e-12
    assert (moved[6:] > 1e-9).all()


def windows_of(folder: Path) -> TaggedWindows:
    documents = read_conllu(written(folder, TEXT))
    return tagged_windows(ByteTokenizer(), documents, context_length=16)


def test_every_token_of_a_document_but_the_last_predicts_the_next(tmp_path: Path) -> None:
    model, windows = routing_model(), windows_of(tmp_path)
    found = Interventions(model, windows, name="a run")
    text = "don't? du naïf ".encode()
    assert len(windows.tokens) == len(text) + len("Да ".encode())
    assert np.flatnonzero(np.isnan(found.nats_before)).tolist() == [15, 20]
    with torch.no_grad():
        logits = model(torch.tensor([[windows.inputs_WT[0, 0], *text[:15]]]))[0, 1:]
    nats = -logits.log_softmax(-1)[torch.arange(15), torch.tensor(list(text[1:16]))]
    np.testing.assert_allclose(found.nats_before[:15], nats.numpy(), rtol=1e-5)


def test_rows_say_what_was_forced_and_what_follows(tmp_path: Path) -> None:
    windows = windows_of(tmp_path)
    found = Interventions(routing_model(), windows, name="a run")
    mask = np.zeros(len(windows.tokens), dtype=bool)
    mask[[2, 4]] = True
    rows = found.rows(Force(path="deep"), mask, on="X", draw=None)
    assert rows.schema == SCHEMA
    follows = np.flatnonzero(rows["follows_forced"])
    assert follows.tolist() == list(range(3, 15)), "of the same window only"
    change = rows["change_nats"].to_numpy()
    assert (np.abs(change[2:15]) > 1e-7).all()
    assert np.abs(change[[0, 1]]).max() == 0
    assert rows["change_nats"].is_null().to_list().count(True) == 2


def test_a_path_that_does_nothing_is_worth_nothing(tmp_path: Path) -> None:
    """With no output of any block both paths are the state itself."""
    model = routing_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("output.weight"):
                parameter.zero_()
    found = Interventions(model, windows_of(tmp_path), name="a run")
    for words in ("deep", "wide", "loops=1"):
        rows = found.rows(read_force(words, model), np.ones(21, dtype=bool), on="X", draw=None)
        assert rows["change_nats"].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("arm", "words", "said"),
    [
        ("wide", "deep", "the wide arm has no gates"),
        ("loop", "wide", "the loop arm has no gates"),
        ("wide", "loops=1", "the wide arm has none"),
        ("moe", "loops=1", "the moe arm has neither"),
        ("dual", "loops=3", "1 to 2 loops, got loops=3"),
        ("dual", "up", "a force is one of"),
    ],
)
def test_what_a_model_has_not_cannot_be_forced(arm: str, words: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_force(words, LanguageModel(small_architecture(arm)))


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match=r"layers are 0 to 1, got \[2\]"):
        read_force("deep", routing_model(), layers=[0, 2])
