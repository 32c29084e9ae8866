import json
import subprocess
import sys

import pytest

from modularity.capture import plan_memory, row_bytes, rows_per_item
from modularity.models import ModelConfig, describe_model
from modularity.types import Site, SiteShape

NEURONS = Site("decoder", "ffn.neurons")


def shapes(n_layers, width):
    return {NEURONS: SiteShape(NEURONS, tuple(range(n_layers)), (width,) * n_layers, ("neuron",), (width,))}


def test_rows_fit_the_target_and_are_multiples_of_128():
    # OPT-125M: 12 x 3072 float32 = 147,456 bytes a row; 96 MiB hold 682 of them.
    small = shapes(12, 3072)
    assert row_bytes(small, "float32") == 147_456
    assert rows_per_item(small, storage_dtype="float32", item_bytes=96 * 2**20) == 640
    assert rows_per_item(small, storage_dtype="bfloat16", item_bytes=96 * 2**20) == 1280


def test_at_least_128_rows_whatever_the_model():
    assert rows_per_item(shapes(32, 10240), storage_dtype="float32", item_bytes=2**20) == 128


PEAK = """
import json, sys
import numpy as np, torch
from transformers import OPTConfig, OPTModel
from modularity.capture import BackgroundWriter, BufferPool, Capturer
from modularity.data import Gather, TokenBatch
from modularity.models import wrap_model
from modularity.types import Site

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

n_items = json.loads(sys.argv[2])
OPTModel(OPTConfig(hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50,
                   word_embed_proj_dim=32)).eval()(torch.ones(1, 4, dtype=torch.long))
before = status("VmRSS")
torch.manual_seed(0)
model = wrap_model(OPTModel(OPTConfig.from_dict(json.loads(sys.argv[1]))), None, name="medium")
site = Site("decoder", "ffn.neurons")
open("/proc/self/clear_refs", "w").write("5")
capturer = Capturer(model, [site])
pool = BufferPool(capturer.shapes, 2048)
ids = np.random.default_rng(0).integers(3, 1000, (32, 64))
mask = np.ones((32, 64), dtype=bool)

batch = TokenBatch(ids, mask, None, None, None, Gather(*np.nonzero(mask), np.arange(2048)), 2048, False)

def write(buffer):
    for array in buffer.arrays.values():
        array.sum()
    pool.release(buffer)

with BackgroundWriter(write, max_pending=1) as writer:
    for _ in range(n_items):
        buffer = pool.acquire(2048)
        capturer.capture([batch], buffer.arrays, 0, reduction=None)
        writer.put(buffer)
print(json.dumps(status("VmHWM") - before))
"""


def measured_peak(config, n_items):
    command = [sys.executable, "-W", "ignore", "-c", PEAK, json.dumps(config), str(n_items)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_predicted_memory_is_within_a_factor_of_two_and_does_not_grow_with_the_items(tmp_path):
    config = {
        "model_type": "opt",
        "vocab_size": 4000,
        "hidden_size": 256,
        "word_embed_proj_dim": 256,
        "ffn_dim": 2048,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "max_position_embeddings": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    description = describe_model(ModelConfig(name=str(tmp_path), weights="random"))
    plan = plan_memory(
        description,
        {NEURONS: description.shapes[NEURONS]},
        storage_dtype="float32",
        n_rows_per_item=2048,
        tokens_per_batch=2048,
        longest_tokens=64,
    )
    few = measured_peak(config, 3)
    many = measured_peak(config, 12)
    assert plan.host_bytes / 2 < few < plan.host_bytes * 2, (plan, few)
    one_buffer = plan.buffer_bytes // 2  # a quick writer may never need the second one
    assert many < 1.1 * few + one_buffer + 8 * 2**20, (few, many)


def test_an_accelerator_holds_the_model_and_the_host_the_buffers(tmp_path):
    config = {"model_type": "opt", "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config | {"word_embed_proj_dim": 64, "vocab_size": 100}))
    description = describe_model(ModelConfig(name=str(tmp_path), weights="random"))
    arguments = {"n_rows_per_item": 128, "tokens_per_batch": 1024, "longest_tokens": 64, "storage_dtype": "bfloat16"}
    neurons = {NEURONS: description.shapes[NEURONS]}
    host = plan_memory(description, neurons, **arguments)
    device = plan_memory(description, neurons, on_device=True, **arguments)
    assert host.device_bytes == 0
    assert host.buffer_bytes == 2 * 128 * 2 * 256 * 2
    assert host.host_bytes == host.parameter_bytes + host.working_bytes + host.buffer_bytes
    assert device.device_bytes == host.parameter_bytes + host.working_bytes
    assert device.host_bytes == device.buffer_bytes == host.buffer_bytes + 4 * 1024 * 256 * 2


def test_a_token_computes_its_chosen_experts_only(tmp_path):
    from transformers import MixtralConfig

    arguments = {"storage_dtype": "float32", "n_rows_per_item": 128, "tokens_per_batch": 4096, "longest_tokens": 128}
    working = []
    for n_experts in (4, 32):
        folder = tmp_path / str(n_experts)
        MixtralConfig(
            hidden_size=32, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
            num_local_experts=n_experts, num_experts_per_tok=2, vocab_size=50,
        ).save_pretrained(folder)  # fmt: skip
        description = describe_model(ModelConfig(name=str(folder)))
        plan = plan_memory(description, {NEURONS: description.shapes[NEURONS]}, **arguments)
        working.append(plan.working_bytes)
        assert plan.working_bytes >= 2 * 4096 * 2 * 1024 * 4
        assert plan.buffer_bytes == 2 * 128 * n_experts * 1024 * 4
    assert working[0] == working[1]
