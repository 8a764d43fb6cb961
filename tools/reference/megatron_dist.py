"""Saves a model with Megatron-core's own dist_checkpointing (torch_dist), for Qianli to read.

    VENV/bin/pip install --no-deps megatron-core==0.12.1
    qianli convert HF MCORE --to mcore [--tensor N --pipeline N --expert N]
    VENV/bin/python tools/reference/megatron_dist.py MCORE DIST
    qianli convert DIST BACK --to hf                  # BACK/model.safetensors equals HF's

Megatron's GPTModel loads MCORE's ranks strictly, which proves their names and shapes, one process
per rank, and saves what Megatron trains: sharded_state_dict(), `args`, iteration and version.

With --train N, Megatron's distributed data parallelism and its distributed optimizer take N steps
first, on --data replicas, and save their states beside (fully_sharded_model_space).
"""
import argparse
import functools
import os
import zlib
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
import torch.multiprocessing


def config_of(args):
    from megatron.core.transformer.transformer_config import (MLATransformerConfig,
                                                              TransformerConfig)
    value = lambda name, absent=None: getattr(args, name, absent)
    common = dict(
        num_layers=args.num_layers, hidden_size=args.hidden_size,
        num_attention_heads=args.num_attention_heads, ffn_hidden_size=args.ffn_hidden_size,
        num_query_groups=args.num_query_groups, kv_channels=args.kv_channels,
        normalization=args.normalization, layernorm_epsilon=args.norm_epsilon,
        gated_linear_unit=args.swiglu, add_bias_linear=args.add_bias_linear,
        add_qkv_bias=args.add_qkv_bias, qk_layernorm=args.qk_layernorm,
        activation_func=torch.nn.functional.silu if args.swiglu else torch.nn.functional.gelu,
        tensor_model_parallel_size=args.tensor_model_parallel_size,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        expert_model_parallel_size=args.expert_model_parallel_size,
        expert_tensor_parallel_size=args.expert_tensor_parallel_size,
        params_dtype=args.params_dtype, pipeline_dtype=args.params_dtype, use_cpu_initialization=True,
        perform_initialization=False, bias_activation_fusion=False, masked_softmax_fusion=False,
        num_moe_experts=value("num_experts"),
        sequence_parallel=value("num_experts") is not None and args.tensor_model_parallel_size > 1)
    if value("num_experts"):
        layers = value("moe_layer_freq", 1)
        if isinstance(layers, int):
            first = value("first_k_dense_replace", 0)
            layers = [int(l >= first and l % layers == 0) for l in range(args.num_layers)]
        common |= dict(moe_ffn_hidden_size=args.moe_ffn_hidden_size, moe_router_topk=args.moe_router_topk,
                       moe_layer_freq=layers if 0 in layers else 1,
                       moe_router_score_function=args.moe_router_score_function,
                       moe_router_enable_expert_bias=args.moe_router_enable_expert_bias,
                       moe_shared_expert_intermediate_size=value(
                           "moe_shared_expert_intermediate_size"),
                       moe_grouped_gemm=False)
    if not value("multi_latent_attention"):
        return TransformerConfig(**common)
    return MLATransformerConfig(**common, multi_latent_attention=True,
                                q_lora_rank=value("q_lora_rank"), kv_lora_rank=args.kv_lora_rank,
                                qk_head_dim=args.qk_head_dim,
                                qk_pos_emb_head_dim=args.qk_pos_emb_head_dim,
                                v_head_dim=args.v_head_dim, rope_type="rope")


def build(args, config):
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    return GPTModel(
        config=config, transformer_layer_spec=spec, vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type, rotary_base=args.rotary_base)


class OnCpu(torch.overrides.TorchFunctionMode):
    """What asks for a GPU by name gets the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        if function is torch.Tensor.cuda:
            return args[0]
        result = function(*args, **kwargs)
        if function is torch.Tensor.type and isinstance(result, str):
            return result.replace("torch.", "torch.cuda.", 1)
        return result


def train(model, steps, args):
    """Some steps of Adam in bfloat16 with float32 copies, with random gradients."""
    from megatron.core.distributed import (DistributedDataParallel, DistributedDataParallelConfig,
                                           finalize_model_grads)
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.optimizer import distrib_optimizer
    distrib_optimizer.quantize_param_shard = lambda *_: None  # asks for Transformer Engine without fp8, too
    config = model.config
    model = model.bfloat16()
    ddp = DistributedDataParallel(config, DistributedDataParallelConfig(
        use_distributed_optimizer=True, grad_reduce_in_fp32=True, overlap_grad_reduce=False), model)
    optimizer = get_megatron_optimizer(OptimizerConfig(
        optimizer="adam", lr=1e-2, min_lr=1e-2, bf16=True, params_dtype=torch.bfloat16, clip_grad=1.0,
        use_distributed_optimizer=True, adam_beta2=0.95), [ddp])
    for step in range(steps):
        ddp.zero_grad_buffer()
        optimizer.zero_grad()
        for name, parameter in ddp.module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + step)
            parameter.main_grad.copy_(torch.randn(parameter.shape, generator=generator))
        finalize_model_grads([ddp])
        optimizer.step()
    return ddp.module, optimizer


def save(rank, world, source, target, port, keep_config, steps):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    # The saver asks for a GPU, whether there is one or not.
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.current_device = lambda: torch.device("cpu")
    # torch 2.7 and later want the format of a file's pieces, which was the only one before.
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from torch.distributed.checkpoint.filesystem import SerializationFormat, _write_item
    filesystem_async._write_item = functools.partial(
        _write_item, serialization_format=SerializationFormat.TORCH_SAVE)
    numpy.product = numpy.prod  # numpy 2 has dropped the name
    dist.init_process_group("gloo", rank=rank, world_size=world)
    from megatron.core import dist_checkpointing, parallel_state
    files = sorted(source.glob("iter_*/mp_rank_*/model_optim_rng.pt"))
    args = torch.load(files[0], weights_only=False)["args"]
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=args.tensor_model_parallel_size,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        expert_model_parallel_size=args.expert_model_parallel_size,
        expert_tensor_parallel_size=args.expert_tensor_parallel_size)
    tensor = parallel_state.get_tensor_model_parallel_rank()
    pipeline = parallel_state.get_pipeline_model_parallel_rank()
    expert = parallel_state.get_expert_model_parallel_rank()
    name = f"mp_rank_{tensor:02}"
    if args.pipeline_model_parallel_size > 1:
        name += f"_{pipeline:03}"
    if args.expert_model_parallel_size > 1:
        name += f"_{expert:03}"
    stored = torch.load(files[0].parents[1] / name / files[0].name, weights_only=False)
    model = build(args, config_of(args))
    model.load_state_dict(stored["model"], strict=True)
    if not keep_config:
        del args.qianli_config
    optimizer = None
    if steps:
        with OnCpu():
            model, optimizer = train(model, steps, args)
        args.bf16, args.params_dtype = True, torch.bfloat16
        args.consumed_train_samples = steps * 2 * parallel_state.get_data_parallel_world_size()
    iteration = target / f"iter_{max(steps, 1):07}"
    if rank == 0:
        iteration.mkdir(parents=True)
    dist.barrier()
    state = {"model": model.sharded_state_dict(), "args": args, "checkpoint_version": 3.0,
             "iteration": max(steps, 1)}
    if optimizer:
        state["optimizer"] = optimizer.sharded_state_dict(state["model"])
    dist_checkpointing.save(state, str(iteration), sharded_strategy=("torch_dist", 1))
    if rank == 0:
        (target / "latest_checkpointed_iteration.txt").write_text(str(max(steps, 1)))
        print("saved", len(list(iteration.glob("*.distcp"))), "files of", world, "ranks")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--keep-config", action="store_true",
                        help="keep the config.json that Qianli left in args")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="steps before saving")
    parser.add_argument("--data", type=int, default=1, metavar="N", help="replicas that train")
    parser.add_argument("--port", type=int, default=29571)
    options = parser.parse_args()
    first = torch.load(next(options.source.glob("iter_*/mp_rank_*/*.pt")), weights_only=False)["args"]
    world = (first.tensor_model_parallel_size * first.pipeline_model_parallel_size *
             first.expert_model_parallel_size) * options.data
    torch.multiprocessing.spawn(save, nprocs=world, args=(
        world, options.source, options.target, options.port, options.keep_config,
        options.train))
