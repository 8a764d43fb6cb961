"""Checks that transformers loads the config.json of every preset as this program writes it, and builds
from it a model with as many parameters as the program counts.

    python check_config.py PATH/TO/qianli
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def qianli(program, *arguments):
    done = subprocess.run([program, "presets", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def check(program, preset):
    written = qianli(program, preset["name"])
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(written))
        config = AutoConfig.from_pretrained(folder)
    assert config.architectures == written["architectures"]
    assert config.dtype == torch.bfloat16, config.dtype
    assert config.bos_token_id is None and config.eos_token_id is None and config.pad_token_id is None
    scaling = written.get("rope_scaling")
    if "rope_theta" in written:
        assert config.rope_parameters["rope_theta"] == written["rope_theta"]
        assert config.rope_parameters["rope_type"] == (scaling["rope_type"] if scaling else "default")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == written["architectures"][0]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == preset["parameters"], (parameters, preset["parameters"])


def main():
    program = sys.argv[1]
    presets = qianli(program, "--json")
    for preset in presets:
        check(program, preset)
        print("ok", preset["name"], flush=True)
    print(f"{len(presets)} presets agree")


if __name__ == "__main__":
    main()
