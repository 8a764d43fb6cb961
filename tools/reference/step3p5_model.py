"""Step-3.5 as a language model: transformers has it as the text part of Step-3.7 alone, under that model's names. Importing
this registers it with AutoModelForCausalLM, written and read under the names of the published files (moe.gate_proj.weight,
share_expert, ...)."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig
from transformers.models.step3p7.modeling_step3p7 import Step3p7PreTrainedModel, Step3p7TextModel


class Step3p5Config(Step3p7TextConfig):
    """Of this module, as transformers registers no class for a configuration of its own."""


class Step3p5ForCausalLM(Step3p7PreTrainedModel, GenerationMixin):
    config: Step3p5Config
    config_class = Step3p5Config
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = Step3p7TextModel(config)
        self.model.embed_tokens.padding_idx = None  # the row of padding has a gradient like any other
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, use_cache=False, past_key_values=None, **kwargs):
        out = self.model(input_ids=input_ids, use_cache=use_cache, past_key_values=past_key_values, **kwargs)
        return CausalLMOutputWithPast(logits=self.lm_head(out.last_hidden_state), past_key_values=out.past_key_values)


def _of_experts(conversion):
    return any("moe" in pattern or "share_expert" in pattern for pattern in conversion.source_patterns)


register_checkpoint_conversion_mapping(
    "step3p5", [one for one in get_checkpoint_conversion_mapping("step3p7") if _of_experts(one)])
AutoConfig.register("step3p5", Step3p5Config, exist_ok=True)
AutoModelForCausalLM.register(Step3p5Config, Step3p5ForCausalLM)
