"""How does transformers run an arm that it has no class for? By the code that trained it.

An exported folder holds this file and the modules that it imports, rewritten to lie beside it
(`runners.export.sources`); isoflop need not be installed there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from spaces.architecture import stored_architecture
from spaces.model import LanguageModel


class IsoflopConfig(PreTrainedConfig):  # type: ignore[misc]
    """An architecture in its canonical form, under ``isoflop_architecture``."""

    model_type = "isoflop"

    def __init__(self, isoflop_architecture: dict[str, Any] | None = None, **values: Any) -> None:
        self.isoflop_architecture = isoflop_architecture
        super().__init__(**values)


class IsoflopForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The language model of one architecture. It keeps no cache: every step reads all tokens."""

    config_class = IsoflopConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: IsoflopConfig) -> None:
        super().__init__(config)
        assert config.isoflop_architecture is not None
        self.model = LanguageModel(stored_architecture(config.isoflop_architecture))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutput:
        """Logits of the next token, and the loss of ``labels``. Raises ValueError for a cache, and
        for padding on the left."""
        if use_cache or any(others.get(name) for name in ("cache", "past_key_values")):
            raise ValueError(
                "this model keeps no cache of keys and values, since its loops and paths would "
                "need one each; call it with use_cache=False"
            )
        if attention_mask is not None and bool((attention_mask.diff(dim=-1) > 0).any()):
            raise ValueError("positions count from the first token: pad on the right")
        logits_BTV = self.model(input_ids)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits_BTV, labels, vocab_size=logits_BTV.shape[-1])
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return CausalLMOutput(loss=loss, logits=logits_BTV[:, kept])

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Set the tables, which no file holds; weights come from the file."""
        if isinstance(module, LanguageModel):
            saved = {name: value.clone() for name, value in module.state_dict().items()}
            module.set_tables()
            module.load_state_dict(saved)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.model.embedding

    def get_output_embeddings(self) -> nn.Module:
        """The untied head."""
        return self.model.head
