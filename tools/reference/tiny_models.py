"""The tiny models behind the golden files: one transformers config per family, random weights
in every tensor, and a scope in which transformers computes wholly in float64."""

import contextlib
from unittest import mock

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

import prediction_heads

VOCAB_SIZE = 97
SEED = 20240607

_SHARED = dict(
    vocab_size=VOCAB_SIZE,
    intermediate_size=72,
    num_hidden_layers=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    use_cache=True,
)


def _rope(rope_type="default", theta=10000.0, **parameters):
    return {"rope_type": rope_type, "rope_theta": theta, **parameters}


def _llama(hidden, heads, key_value_heads, rope, eps=1e-5, **more):
    return LlamaConfig(
        **(_SHARED | more),
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        rms_norm_eps=eps,
        rope_parameters=rope,
    )


def _qwen2(hidden, heads, key_value_heads, rope, tied):
    return Qwen2Config(
        **_SHARED,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        rms_norm_eps=1e-6,
        rope_parameters=rope,
        tie_word_embeddings=tied,
    )


def _mistral(layers, window, **shape):
    return MistralConfig(
        **(_SHARED | dict(num_hidden_layers=layers)),
        **shape,
        rms_norm_eps=1e-5,
        sliding_window=window,
        rope_parameters=_rope(),
    )


def _gpt2():
    return GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=72,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    )


def _qwen3():
    return Qwen3Config(
        **_SHARED,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(theta=1000000.0),
        tie_word_embeddings=True,
    )


# Scaled rotary embeddings take effect within 40 positions: every branch of the llama3 rule
# (kept, blended, divided) and an inner point of the yarn ramp occur among the frequencies.
FAMILIES = {
    "gpt2": _gpt2,
    "llama1": lambda: _llama(32, 4, 4, _rope(), eps=1e-6),
    "llama2": lambda: _llama(36, 6, 2, _rope()),
    "llama3.1": lambda: _llama(
        40,
        4,
        2,
        _rope(
            "llama3",
            theta=500.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
        max_position_embeddings=256,
    ),
    "llama_linear": lambda: _llama(32, 4, 2, _rope("linear", factor=2.5)),
    "llama_dynamic": lambda: _llama(32, 4, 4, _rope("dynamic", factor=3.0)),
    "qwen2": lambda: _qwen2(32, 4, 2, _rope(theta=1000000.0), tied=True),
    "qwen2_yarn": lambda: _qwen2(
        48, 4, 2, _rope("yarn", theta=100.0, factor=2.0, original_max_position_embeddings=32), tied=False
    ),
    "mistral": lambda: _mistral(
        2, None, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=12
    ),
    "mistral_window": lambda: _mistral(3, 8, hidden_size=32, num_attention_heads=4, num_key_value_heads=1),
    "qwen3": _qwen3,
}


def _is_norm_scale(name):
    # DBRX calls the module around its attention norm_attn_norm.
    modules = name.replace("norm_attn_norm.attn", "attn")
    return name.endswith("weight") and ("norm" in modules or ".ln_" in name)


def _adds_one(model, name):
    """Qwen3-Next scales by 1 + weight, except behind the delta rule. Scales near 2, above all those of queries and keys,
    would make scores so large that float32 loses them, whoever computes it."""
    return model.config.model_type == "qwen3_next" and not name.endswith("linear_attn.norm.weight")


@torch.no_grad()
def fill_with_random_weights(model, seed):
    """Matrices ~ N(0, 0.15), biases ~ N(0, 0.1), norm scales ~ 1 + N(0, 0.2), in name order."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        if _is_norm_scale(name):
            parameter.copy_(0.2 * noise + (0.0 if _adds_one(model, name) else 1.0))
        else:
            parameter.copy_((0.15 if parameter.dim() > 1 else 0.1) * noise)


def make_model(family, seed=SEED):
    """The float32 model of a family, eager attention, fresh random weights."""
    model = AutoModelForCausalLM.from_config(
        FAMILIES[family](), attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
    )
    fill_with_random_weights(model, seed + list(FAMILIES).index(family))
    return model.eval()


@contextlib.contextmanager
def float64_everywhere():
    """Inside, what asks for float32 by name gets float64.

    transformers computes norms, softmax and rotary angles in float32 whatever the dtype of the
    model is; a model built and called inside this scope is exact to float64.
    """
    previous = torch.get_default_dtype()
    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64):
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            torch.set_default_dtype(torch.float64)
            try:
                yield
            finally:
                torch.set_default_dtype(previous)


def to_float64(model):
    """A float64 copy of `model` whose rotary frequencies are computed in float64 too."""
    with float64_everywhere():
        copy = AutoModelForCausalLM.from_config(
            model.config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float64
        )
        prediction_heads.attach(copy)
    copy.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    copy.tie_weights()
    return copy.eval()


def forward(model, tokens):
    """Logits [B, S, V] in the dtype of the model, without a cache."""
    if model.dtype != torch.float64:
        return model(input_ids=tokens, use_cache=False).logits
    with float64_everywhere():
        return model(input_ids=tokens, use_cache=False).logits


def mean_cross_entropy(logits, labels):
    """Mean over the positions whose label is not -100; labels[t] is the target of position t."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), ignore_index=-100)


def versions():
    import platform

    import transformers

    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
