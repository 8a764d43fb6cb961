"""Heads that predict the tokens behind the next one, which transformers leaves out: put onto its models with its own
decoder layers, so that only what surrounds the layer is written here (DeepSeek-V3, arXiv:2412.19437, section 2.2).

attach(model) gives the model the heads its config.json speaks of, under the names that published folders use;
loss(model, hidden, tokens, labels) is their share of the loss.
"""

import torch
import torch.nn.functional as F

LOSS_SCALING_FACTOR = 0.1  # the default of mtp.loss_scaling_factor


def depths(config):
    return getattr(config, "num_nextn_predict_layers", 0) or 0


def attach(model):
    if depths(model.config) == 0:
        return
    config, base = model.config, model.model
    h, eps, kinds = config.hidden_size, config.rms_norm_eps, type(base.norm)
    with torch.device(model.device):
        for depth in range(depths(config)):
            index = config.num_hidden_layers + depth
            if config.model_type == "qwen3_next":
                layer = type(base.layers[-1])(config, config.layer_types.index("full_attention"))
                head = torch.nn.Module()
                head.pre_fc_norm_embedding, head.pre_fc_norm_hidden, head.norm = (kinds(h, eps) for _ in range(3))
                head.fc = torch.nn.Linear(2 * h, h, bias=False)
                head.layers = torch.nn.ModuleList([layer])
                model.mtp = head
            else:
                layer = type(base.layers[-1])(config, index)
                layer.enorm, layer.hnorm, layer.shared_head = kinds(h, eps), kinds(h, eps), torch.nn.Module()
                layer.eh_proj = torch.nn.Linear(2 * h, h, bias=False)
                layer.shared_head.norm = kinds(h, eps)
                base.layers.append(layer)  # the model itself runs num_hidden_layers of them
    model.to(model.dtype)


def _parts(model, depth):
    """The norms of embedding, hidden state and output, the projection and the layer."""
    if model.config.model_type == "qwen3_next":
        head = model.mtp
        return head.pre_fc_norm_embedding, head.pre_fc_norm_hidden, head.norm, head.fc, head.layers[0]
    layer = model.model.layers[model.config.num_hidden_layers + depth]
    return layer.enorm, layer.hnorm, layer.shared_head.norm, layer.eh_proj, layer


def loss(model, hidden, tokens, labels):
    """hidden: [B, S, h] in front of the final norm. The mean cross entropy of every depth, times the factor over depths."""
    length = tokens.shape[1]
    positions = torch.arange(length)[None]
    mask = torch.full((length, length), float("-inf"), dtype=hidden.dtype).triu(1)[None, None]
    total = 0
    for depth in range(depths(model.config)):
        embedding_norm, hidden_norm, norm, projection, layer = _parts(model, depth)
        tokens, labels = F.pad(tokens[:, 1:], (0, 1), value=0), F.pad(labels[:, 1:], (0, 1), value=-100)
        both = torch.cat([embedding_norm(model.model.embed_tokens(tokens)), hidden_norm(hidden)], -1)
        x = projection(both)
        hidden = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=model.model.rotary_emb(x, positions))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        logits = model.lm_head(norm(hidden))
        total = total + F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    return LOSS_SCALING_FACTOR / depths(model.config) * total
