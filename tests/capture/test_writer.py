import threading
import time

import pytest

from modularity.capture import BackgroundWriter
from modularity.errors import InputError


def test_everything_is_written_in_order():
    written = []
    with BackgroundWriter(written.append, max_pending=3) as writer:
        for item in range(100):
            writer.put(item)
    assert written == list(range(100))
    assert writer.n_written == 100


@pytest.mark.parametrize("max_pending", [1, 3])
def test_a_slow_sink_holds_the_producer_back(max_pending):
    gate = threading.Semaphore(0)
    n_put, n_written = 0, 0
    ahead = []

    def write(item):
        nonlocal n_written
        gate.acquire()
        n_written += 1

    def produce(writer):
        nonlocal n_put
        for item in range(12):
            writer.put(item)
            n_put += 1
            ahead.append(n_put - n_written)

    with BackgroundWriter(write, max_pending=max_pending) as writer:
        producer = threading.Thread(target=produce, args=(writer,))
        producer.start()
        deadline = time.monotonic() + 5
        while n_put < max_pending and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert n_put == max_pending
        for _ in range(12):
            gate.release()
        producer.join()
    assert n_written == 12
    assert max(ahead) <= max_pending


def test_an_error_comes_back_at_the_next_put_with_what_was_not_written():
    reached = threading.Event()

    def write(item):
        reached.wait()
        raise OSError(f"disk full at item {item}")

    writer = BackgroundWriter(write, max_pending=3)
    for item in range(3):
        writer.put(item)
    reached.set()
    with pytest.raises(OSError, match="disk full at item 0") as error:
        writer.put(3)
    assert error.value.__notes__ == ["2 items handed to the background writer after this one were not written."]
    with pytest.raises(OSError, match="disk full at item 0"):
        writer.close()


def test_an_error_of_the_last_item_comes_back_at_the_end_of_the_context():
    def write(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), BackgroundWriter(write) as writer:
        writer.put(1)


def test_what_was_put_is_written_although_the_body_fails():
    written = []

    def write(item):
        time.sleep(0.01)
        written.append(item)

    with pytest.raises(KeyError), BackgroundWriter(write, max_pending=4) as writer:
        for item in range(4):
            writer.put(item)
        raise KeyError("body")
    assert written == [0, 1, 2, 3]


def test_the_error_of_the_body_wins_and_names_that_of_the_sink():
    def write(item):
        raise OSError("disk full")

    with pytest.raises(KeyError) as error, BackgroundWriter(write) as writer:
        writer.put(1)
        raise KeyError("body")
    assert error.value.__notes__ == ["The background writer failed as well: OSError: disk full"]


def test_closed_and_senseless_writers_are_refused():
    writer = BackgroundWriter(print)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="put on a closed BackgroundWriter"):
        writer.put(1)
    with pytest.raises(InputError, match="max_pending=-1: expected 0"):
        BackgroundWriter(print, max_pending=-1)


def test_without_pending_items_put_writes_in_the_same_thread():
    written = []
    with BackgroundWriter(lambda item: written.append((item, threading.get_ident())), max_pending=0) as writer:
        for item in range(3):
            writer.put(item)
            assert written[-1] == (item, threading.get_ident())
    assert writer.n_written == 3


def test_without_pending_items_an_error_refuses_later_items():
    def write(item):
        raise KeyError(item)

    with pytest.raises(KeyError), BackgroundWriter(write, max_pending=0) as writer:
        with pytest.raises(KeyError, match="0"):
            writer.put(0)
        writer.put(1)
