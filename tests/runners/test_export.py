"""Does every arm leave as a folder that transformers loads alone, with equal logits?"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runners.export.folder import export_folder
from runners.export.sources import source_files
from runners.export.tokenizer_files import bytes_as_json
from runners.text.corpus import Corpus, prepare_corpus
from runners.text.tokenizers import ByteTokenizer, load_tokenizer
from runners.trial.trained import Trained
from search.record.trial import Outcome, Proposal
from search.record.trial_records import TrialRecord
from spaces.architecture import Architecture
from spaces.arms import registry
from spaces.arms.registry import ArmFile
from spaces.budget import Budget
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.attention import rotation_tables
from tests.runners.small import small_architecture, small_trial
from tests.spaces.conformance import ARMS, EXAMPLE, architecture_of

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="needs the library transformers: pip install isoflop[hf]",
)

STANDARDS: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": "none"},
    "norms before": {"qk_norm": "before"},
    "norms after": {"qk_norm": "after"},
    "trained steps": {"step_scales": "trained", "step_scale_init": -1.0},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "convex": {"gate_mode": "convex", "loop_output": "average", "wide_attention": False},
    "fixed": {"gate_mode": "fixed", "loop_output": "final", "qk_norm": "none"},
}

LOADER = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, is_native = sys.argv[1], sys.argv[2] == "True"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=not is_native)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=not is_native)
torch.set_num_threads(1)
tokens = torch.load(folder + ".tokens")
with torch.no_grad():
    torch.save(model(tokens).logits, folder + ".logits")
prompt = tokens[:1, :4]
every = torch.ones_like(prompt)
generated = model.generate(prompt, attention_mask=every, max_new_tokens=6, do_sample=False)
refused = ""
if not is_native:
    try:
        model(tokens, use_cache=True)
    except ValueError as error:
        refused = str(error)
roots = {name.split(".")[0] for name in sys.modules}
print(json.dumps({
    "kind": type(model).__name__, "generated": generated.tolist(), "refused": refused,
    "house": sorted(roots & {"spaces", "search", "runners", "isoflop"}),
    "ids": tokenizer(json.loads(sys.argv[3]))["input_ids"],
    "text": tokenizer.decode(tokenizer(json.loads(sys.argv[3]))["input_ids"]),
    "eos": tokenizer.eos_token_id,
}))
"""

TEXT = "“Fellow-citizens” of 1861,\n\t naïve <|endoftext|> words  twice."


def trained(architecture: Architecture, corpus: Corpus) -> Trained:
    """A model whose every weight is off its start, as after training."""
    tokens = 42 * architecture.context_length
    config = small_trial(corpus, architecture=architecture, tokens=tokens)
    model = LanguageModel(architecture, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    record = TrialRecord(
        number=7,
        proposal=Proposal(
            config=config,
            arm=architecture.arm,
            budget=Budget(train_flops=1e9),
            axes={},
            purpose="search",
        ),
        state="complete",
        set_aside=None,
        attempts=(),
        outcome=Outcome(
            status="complete",
            loss_nats=2.5,
            bits_per_byte=3.6,
            train_flops={"full": 10, "causal": 9, "projection": 8},
            readouts={"deep_share": (0.4, 0.6)},
            warnings=("the text was seen 2.00 times",),
        ),
        accepted_at=1.0,
        sweep="toy",
    )
    tokenizer = load_tokenizer(corpus.tokenizer_path)
    return Trained(record=record, model=model.eval(), corpus=corpus, tokenizer=tokenizer)


def loaded(folder: Path, *, is_native: bool) -> dict[str, Any]:
    """What a process of its own finds in a folder: offline, far from this checkout."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder), str(is_native), json.dumps(TEXT)],
        cwd=folder.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def exported(architecture: Architecture, corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Export, load elsewhere, compare: logits, generation, tokenizer."""
    source = trained(replace(architecture, vocab_size=corpus.vocab_size), corpus)
    export_folder(source, folder)
    length = architecture.context_length
    tokens = torch.randint(corpus.vocab_size, (3, length), generator=torch.Generator())
    torch.save(tokens, f"{folder}.tokens")
    found = loaded(folder, is_native=architecture.arm == "standard")
    theirs = torch.load(f"{folder}.logits")
    with torch.no_grad():
        ours = source.model(tokens)
        continued = tokens[:1, :4]
        for _ in range(6):
            following = source.model(continued)[:, -1:].argmax(dim=-1)
            continued = torch.cat((continued, following), dim=1)
            if following.item() == source.tokenizer.separator:
                break
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert found["generated"] == continued.tolist()
    assert found["house"] == [], "the folder stands alone"
    (ids,) = source.tokenizer.encode([TEXT.encode()])
    assert found["ids"] == ids.tolist()
    assert found["text"] == TEXT
    assert found["eos"] == source.tokenizer.separator
    return found


@pytest.fixture(scope="module")
def bpe_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare_corpus(None, tokenizer="bpe:300", cache_dir=tmp_path_factory.mktemp("bpe"))


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("arm", [name for name in ARMS if name not in ("standard", "unrolled")])
def test_an_arm_leaves_with_its_code(arm: str, sotu_corpus: Corpus, tmp_path: Path) -> None:
    found = exported(architecture_of(arm), sotu_corpus, tmp_path / "model")
    assert found["kind"] == "IsoflopForCausalLM"
    assert "use_cache=False" in found["refused"]


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_leaves_with_its_code(variant: str, bpe_corpus: Corpus, tmp_path: Path) -> None:
    exported(small_architecture("dual", **VARIANTS[variant]), bpe_corpus, tmp_path / "model")


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("variant", STANDARDS)
def test_the_standard_arm_leaves_without_code(
    variant: str, bpe_corpus: Corpus, tmp_path: Path
) -> None:
    architecture = small_architecture("standard", **STANDARDS[variant])
    found = exported(architecture, bpe_corpus, tmp_path / "model")
    assert found["kind"] == f"{'Llama' if variant == 'llama' else 'Qwen3'}ForCausalLM"
    assert not list((tmp_path / "model").glob("*.py"))


@needs_transformers
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_only_angles_in_float32_part_the_standard_arm_in_long_contexts(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    """With the angles of this package transformers is as near at 1,024 tokens as at 64."""
    from transformers import AutoModelForCausalLM

    length = 1024
    sizes = {"context_length": length, "d_model": 128, "head_dim": 32, "num_layers": 4}
    architecture = small_architecture("standard", vocab_size=sotu_corpus.vocab_size, **sizes)
    source = trained(architecture, sotu_corpus)
    export_folder(source, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokens = torch.randint(source.model.head.weight.shape[0], (1, length))

    def gap(count: int) -> float:
        """Of logits, over the largest of them."""
        with torch.no_grad():
            ours = source.model(tokens[:, :count])
            return float((theirs(tokens[:, :count]).logits - ours).abs().max() / ours.abs().max())

    short, long = gap(64), gap(length)
    tables = rotation_tables(length, architecture.head_dim, architecture.rope_base)
    cos_TC, sin_TC = (table.float().repeat(1, 2)[None] for table in tables.values())
    theirs.model.rotary_emb.forward = lambda _, positions: (
        cos_TC[:, : positions.shape[1]],
        sin_TC[:, : positions.shape[1]],
    )
    assert gap(length) < 1.5 * max(short, 2e-6) < long


def test_bytes_are_the_ids_of_their_tokenizer() -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_str(bytes_as_json())
    library.encode_special_tokens = True
    every = "".join(map(chr, range(1, 0x800))) + "\U0001f642"
    (ids,) = ByteTokenizer().encode([every.encode()])
    assert library.encode(every).ids == ids.tolist()
    assert library.decode(ids.tolist()) == every
    assert library.token_to_id("<|endoftext|>") == ByteTokenizer.separator


def test_a_folder_says_what_it_holds(sotu_corpus: Corpus, tmp_path: Path) -> None:
    source = trained(small_architecture("dual"), sotu_corpus)
    names = export_folder(source, tmp_path / "model", laws=["L = 1"], scores={"blimp acc": 0.61})
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names
    card = (tmp_path / "model" / "README.md").read_text()
    for said in ("public domain", "full 10, causal 9", "0.400, 0.600", "seen 2.00", "0.6100"):
        assert said in card
    assert "learning rate 0.01" in card
    assert "L = 1" in card
    kept = json.loads((tmp_path / "model" / "isoflop.json").read_text())
    assert kept["config_hash"] == source.record.config_hash
    with pytest.raises(RequestError, match="exists; name another"):
        export_folder(source, tmp_path / "model")
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


def test_code_that_travels_names_no_room_of_the_house() -> None:
    for arm in ARMS:
        if arm in ("standard", "unrolled"):
            continue
        files = source_files(architecture_of(arm), identity="0123")
        for name, text in files.items():
            compile(text, name, "exec")
            for line in text.splitlines():
                assert not re.match(r"\s*(from|import) (spaces|search|runners|isoflop)", line), line
            for module in re.findall(r"^\s*from \.(\w+) import", text, re.MULTILINE):
                assert f"{module}.py" in files


def test_an_arm_that_cannot_travel_is_refused(
    sotu_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["isoflop_arms_parallel_arm"]
    text = EXAMPLE.read_text() + "\nfrom search.record.ledger import Ledger\n"
    file = ArmFile(name=module.__name__, text=text)
    monkeypatch.setitem(registry._FILES, module.__name__, file)
    source = trained(architecture_of("parallel"), sotu_corpus)
    with pytest.raises(RequestError, match="imports search"):
        export_folder(source, tmp_path / "model")
    public = EXAMPLE.read_text().replace(
        "from spaces.arms.contract import Arm\n", "from isoflop import Arm as Arm, Batch\n"
    )
    monkeypatch.setitem(registry._FILES, module.__name__, replace(file, text=public))
    files = source_files(architecture_of("parallel"), identity="0123")
    assert "from .spaces_arms_contract import Arm as Arm\n" in files[f"{module.__name__}.py"]
