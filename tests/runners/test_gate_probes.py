"""Does a probe read tagged text as it is written, and give each token its word and its gates?"""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
import torch

from runners.probes.conllu import TaggedDocument, read_conllu, words_of_tokens
from runners.probes.gates import SCHEMA, probe_gates
from runners.text.tokenizers import ByteTokenizer, make_tokenizer
from spaces.errors import RequestError
from spaces.model import LanguageModel
from tests.runners.small import small_architecture


def line(index: str, form: str, tag: str = "_", misc: str = "_") -> str:
    return "\t".join([index, form, "_", tag, *"_____", misc])


TEXT = [
    "# newdoc id = first",
    line("1-2", "don't", misc="SpaceAfter=No"),
    line("1", "do", "AUX"),
    line("2", "n't", "PART"),
    line("3", "?", "PUNCT"),
    "",
    line("1-2", "du"),
    line("1", "de", "ADP"),
    line("2", "le", "DET"),
    line("2.1", "ghost", "NOUN"),
    line("3", "naïf", "NOUN"),
    "",
    "# newdoc",
    line("1", "Да", "PART"),
    "",
]


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "text.conllu"
    path.write_text("\n".join(lines) + "\n")
    return path


def forms(document: TaggedDocument) -> list[str]:
    text = document.text.encode()
    return [text[word.start : word.end].decode() for word in document.words]


def test_text_is_rebuilt_and_every_word_found_in_it(tmp_path: Path) -> None:
    first, second = read_conllu(written(tmp_path, TEXT))
    assert (first.name, first.text) == ("first", "don't? du naïf ")
    assert forms(first) == ["do", "n't", "?", "naïf"]
    assert [word.sentence for word in first.words] == [0, 0, 0, 1]
    assert (second.name, second.text, forms(second)) == ("document 2", "Да ", ["Да"])


@pytest.mark.parametrize(
    ("number", "content", "said"),
    [
        (5, "3 ? PUNCT", "line 5 .* has 1 columns"),
        (5, line("x", "?", "PUNCT"), "line 5 .* has the id 'x'"),
        (5, line("3", "?", "NOUNS"), "line 5 .* has the tag 'NOUNS'"),
        (3, "", "line 3 .* before word 2 of a range"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, number: int, content: str, said: str) -> None:
    lines = [*TEXT]
    lines[number - 1] = content
    with pytest.raises(RequestError, match=said):
        read_conllu(written(tmp_path, lines))


def test_a_file_without_words_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no words"):
        read_conllu(written(tmp_path, ["# newdoc"]))
    with pytest.raises(RequestError, match="cannot be read"):
        read_conllu(tmp_path / "nowhere.conllu")


def test_pieces_belong_to_the_word_of_their_last_byte(tmp_path: Path) -> None:
    first, _ = read_conllu(written(tmp_path, TEXT))
    by_byte = list(words_of_tokens(first.words, [1] * len(first.text.encode())))
    assert by_byte == [0, 0, 1, 1, 1, 2, None, None, None, None, 3, 3, 3, 3, 3, None]
    tokenizer = make_tokenizer("bpe:262", iter([b"don't don't don't naif naif"] * 3))
    ids = next(tokenizer.encode([first.text.encode()]))
    pieces = list(words_of_tokens(first.words, tokenizer.token_num_bytes()[ids].tolist()))
    assert len(pieces) == len(ids)
    assert pieces[0] == 1, "the piece don ends in n't"
    assert {each for each in pieces if each is not None} == {1, 2, 3}


def test_every_token_of_every_layer_has_its_gates(tmp_path: Path) -> None:
    model = LanguageModel(small_architecture("dual", gate_bias_init=0.0), seed=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.linear.bias"):
                parameter.copy_(torch.tensor([math.log(3.0), 0.0]))
    documents = read_conllu(written(tmp_path, TEXT))
    probe = probe_gates(model, ByteTokenizer(), documents, name="a run")
    num_tokens = sum(len(document.text.encode()) for document in documents)
    assert len(probe) == 2 * num_tokens
    assert probe.schema == pl.Schema(SCHEMA)
    assert probe["g_d"].to_list() == pytest.approx([0.75] * len(probe))
    assert probe["deep_share"].to_list() == pytest.approx([0.6] * len(probe))
    assert probe["expected_loops"].is_between(1, 2).all()
    assert probe["position"].max() == 15
    assert probe.filter(pl.col("is_last_piece") & (pl.col("layer") == 0))["form"].to_list() == [
        "do",
        "n't",
        "?",
        "naïf",
        "Да",
    ]


def test_a_probe_sees_what_the_model_sees(tmp_path: Path) -> None:
    """Gates of the second window are those of that window alone."""
    model = LanguageModel(small_architecture("dual"), seed=4)
    with torch.no_grad():
        for layer in model.layers:
            layer.gate.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    first, _ = read_conllu(written(tmp_path, TEXT))
    probe = probe_gates(model, ByteTokenizer(), [first], name="a run")
    rest = first.text.encode()[15:]
    tokens = torch.tensor([[0, *rest]])
    with torch.no_grad():
        gates = model.hidden_with_readings(tokens)[1]["gates_LBT2"][:, 0, 1:]
    found = probe.filter(pl.col("layer") == 1)[15:]["g_d"].to_list()
    assert found == pytest.approx(gates[1, :, 0].tolist(), abs=1e-6)


def test_a_loop_has_loops_and_no_gates_and_a_wide_model_neither(tmp_path: Path) -> None:
    documents = read_conllu(written(tmp_path, TEXT))
    loop = LanguageModel(small_architecture("loop"), seed=1)
    probe = probe_gates(loop, ByteTokenizer(), documents, name="a run")
    assert probe["deep_share"].is_null().all()
    assert probe["expected_loops"].is_between(1, 3).all()
    wide = LanguageModel(small_architecture("wide"), seed=1)
    with pytest.raises(RequestError, match="the wide arm has neither"):
        probe_gates(wide, ByteTokenizer(), documents, name="a run")
