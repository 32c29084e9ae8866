"""The ring with a device that copies late, in a thread of its own; and with CUDA where there is one."""

import queue
import threading
import time

import numpy as np
import pytest
import torch

from modularity.capture import Capturer
from modularity.capture.transfer import CudaCopier, HostRing
from modularity.errors import NumericError
from modularity.store import bfloat16_from_bits, stored_dtype


class LateCopier:
    """Copies in order, some time after `start`, and checks that no buffer is written to before it was read."""

    def __init__(self, delay_s=0.002):
        self._queue = queue.Queue()
        self._delay_s = delay_s
        self.n_allocated = 0
        threading.Thread(target=self._run, daemon=True).start()

    def allocate(self, n_bytes):
        self.n_allocated += 1
        return torch.zeros(n_bytes, dtype=torch.uint8)

    def start(self, source, target):
        done = threading.Event()
        done.synchronize = lambda: done.wait(2)
        self._queue.put((source.clone(), target, done))
        return done

    def _run(self):
        while True:
            source, target, done = self._queue.get()
            time.sleep(self._delay_s)
            with torch.inference_mode():
                target.copy_(source)
            done.set()


@pytest.mark.parametrize("n_slots", [2, 3, 8])
@pytest.mark.parametrize("receiver_delay_s", [0.0, 0.004])
def test_every_copy_arrives_whole_and_in_order(n_slots, receiver_delay_s):
    received = []

    def receive(values):
        time.sleep(receiver_delay_s)
        received.append(values.clone())

    sent = [torch.full((3, 1 + number % 5), float(number)) for number in range(40)]
    copier = LateCopier(0.001)
    with HostRing(copier, n_slots=n_slots) as ring:
        for values in sent:
            ring.submit(values, receive)
    assert len(received) == len(sent)
    assert all(torch.equal(a, b) for a, b in zip(sent, received, strict=True))
    assert copier.n_allocated <= 5 * n_slots


def test_memory_is_that_of_the_largest_copies():
    ring = HostRing(LateCopier(0.0), n_slots=4)
    for _ in range(3):
        with ring:
            for _ in range(20):
                ring.submit(torch.zeros(100), lambda values: None)
    assert ring.nbytes == 4 * 400


def test_slow_receiver_holds_the_model_back():
    gate = threading.Semaphore(0)
    n_submitted = 0

    def produce(ring):
        nonlocal n_submitted
        for _ in range(10):
            ring.submit(torch.zeros(4), lambda values: gate.acquire())
            n_submitted += 1

    with HostRing(LateCopier(0.0), n_slots=3) as ring:
        producer = threading.Thread(target=produce, args=(ring,))
        producer.start()
        time.sleep(0.1)
        assert n_submitted == 2
        for _ in range(10):
            gate.release()
        producer.join()
    assert n_submitted == 10


def test_error_of_the_receiver_comes_back():
    def receive(values):
        raise NumericError("bad values")

    with pytest.raises(NumericError, match="bad values"), HostRing(LateCopier(0.0)) as ring:
        ring.submit(torch.zeros(1), receive)


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("reduction", ["max", None])
def test_capture_through_the_ring_equals_direct_capture(tiny, batch_of, run, neurons, storage, reduction):
    model = tiny("opt")
    pooled = reduction == "max"
    batches = [batch_of([4, 6, 2], first_row=(3 if pooled else 12) * n, pooled=pooled, seed=n) for n in range(4)]
    n_rows = 12 if pooled else 48
    direct, _ = run(model, batches, n_rows=n_rows, reduction=reduction, dtype=storage)
    site = neurons(model)
    capturer = Capturer(model, [site], storage_dtype=storage)
    capturer._ring = HostRing(LateCopier(), n_slots=3)
    out = np.zeros((n_rows, 3, 48), dtype=stored_dtype(storage))
    for _ in range(2):
        capturer.capture(batches, {site: out}, reduction=reduction)
        np.testing.assert_array_equal(out, direct[site])


def test_overflow_and_nan_are_seen_behind_the_ring(tiny, batch_of, neurons, n_hooks):
    model = tiny("opt")
    site = neurons(model)
    fc1 = model.module.decoder.layers[1].fc1
    batch = [batch_of([4, 4], first_row=10)]
    for bias, dtype, message in [
        (
            70000.0,
            "float16",
            r"layer 1: 7000\d.* does not fit float16.*2 rows \(10, 11\), first at unit 5; store",
        ),
        (torch.nan, "bfloat16", r"layer 1: 2 captured values are NaN or infinite; 2 rows \(10, 11\), first at unit 5"),
    ]:
        fc1.bias.data[5] = bias
        capturer = Capturer(model, [site], layers=[1], storage_dtype=dtype)
        capturer._ring = HostRing(LateCopier(), n_slots=2)
        with pytest.raises(NumericError, match=message):
            capturer.capture(batch, {site: np.zeros((2, 1, 48), stored_dtype(dtype))}, 10, reduction="max")
    assert n_hooks(model) == 0


@pytest.mark.gpu
def test_cuda_copies_survive_the_reuse_of_device_memory():
    received = []
    with HostRing(CudaCopier(), n_slots=3) as ring:
        for number in range(200):
            values = torch.full((512, 1024), float(number), device="cuda")
            ring.submit(values, lambda host: received.append((host[0, 0].item(), host.min().item(), host.max().item())))
            del values
    assert received == [(float(number),) * 3 for number in range(200)]


@pytest.mark.gpu
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["max", "mean", None])
def test_capture_on_cuda_is_close_to_the_cpu(tiny, batch_of, run, neurons, storage, reduction):
    pooled = reduction is not None
    batches = [batch_of([4, 6, 2], first_row=(3 if pooled else 12) * n, pooled=pooled, seed=n) for n in range(4)]
    arguments = {"n_rows": 12 if pooled else 48, "reduction": reduction, "dtype": storage}
    model = tiny("opt")
    site = neurons(model)
    expected, _ = run(model, batches, **arguments)
    model.module.cuda()
    seen, _ = run(model, batches, **arguments)
    decode = bfloat16_from_bits if storage == "bfloat16" else np.asarray
    tolerance = 1e-2 if storage == "bfloat16" else 1e-3
    np.testing.assert_allclose(decode(seen[site]), decode(expected[site]), rtol=tolerance, atol=tolerance)
