"""Memory of a device, and the way there."""

import ctypes

import pytest
import torch

from spk.common.errors import InputError
from spk.extract.encoder import device as room
from spk.extract.encoder.device import (
    GPU_SECONDS,
    DeviceTransfer,
    batch_seconds_for_memory,
    choose_device,
    choose_devices,
    default_batch_seconds,
    keep_freed_memory,
    set_threads_and_device,
    shared_batch_seconds,
)

CPU = torch.device("cpu")


def test_a_batch_grows_with_free_memory_up_to_what_is_of_use():
    found = [
        batch_seconds_for_memory(gigabytes << 30, itemsize=2) for gigabytes in (0, 1, 2, 8, 200)
    ]
    assert found == [1.0, 32.0, 65.0, 262.0, GPU_SECONDS]


def test_float32_takes_twice_the_memory_of_bfloat16():
    free = 3 << 30
    assert (
        batch_seconds_for_memory(free, itemsize=4)
        == batch_seconds_for_memory(free, itemsize=2) // 2
    )


def test_a_batch_of_that_length_fits_the_front_ends_first_layers():
    free, itemsize = 2 << 30, 2
    first = (
        batch_seconds_for_memory(free, itemsize) * 3200 * 512 * itemsize
    )  # bytes of one layer's output
    assert 3 * first < room.SPARE * free


def test_a_cpu_has_a_batch_near_its_caches():
    assert default_batch_seconds(CPU, torch.float32) == room.CPU_SECONDS


def test_processes_on_one_gpu_share_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    free = {0: 6 << 30, 1: 4 << 30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index or 0], 0))
    assert shared_batch_seconds(["cuda:0", "cuda:1"], "bfloat16") == batch_seconds_for_memory(
        4 << 30, 2
    )
    assert shared_batch_seconds(
        ["cuda:0", "cuda", "cuda:1"], "bfloat16"
    ) == batch_seconds_for_memory(3 << 30, 2)


def test_a_process_settles_on_its_gpu(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    set_threads_and_device("cuda:1", torch.get_num_threads())
    set_threads_and_device("cpu", torch.get_num_threads())
    assert taken == [torch.device("cuda:1")]


def test_a_list_is_expected_only_where_one_is_taken():
    with pytest.raises(InputError, match="'gpu', expected auto, cpu, cuda or cuda:1; correct"):
        choose_device("gpu")
    with pytest.raises(InputError, match="'gpu', expected auto, .*, cuda:all or a list such as"):
        choose_devices("cpu,gpu")


def test_a_lane_on_a_cpu_copies_nothing():
    batch = DeviceTransfer(CPU).empty((2, 3), torch.int16)
    assert DeviceTransfer(CPU).to_device(batch) is batch
    assert DeviceTransfer(CPU).to_host(batch)().data_ptr() == batch.data_ptr()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc: no mallopt")
def test_memory_is_kept_while_a_cpu_works_and_given_back_after(monkeypatch):
    said = []

    class Library:
        mallopt = staticmethod(lambda name, value: said.append((name, value)))
        malloc_trim = staticmethod(lambda keep: said.append(("trim", keep)))

    monkeypatch.setattr(room.ctypes, "CDLL", lambda name: Library)

    def work():
        with keep_freed_memory(CPU):
            said.append("work")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert said[:3] == [(-1, 2**31 - 1), (-4, 0), "work"]
    assert said[3:] == [(-1, 64 << 20), (-3, 32 << 20), (-4, 65536), ("trim", 0)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_goes_to_a_gpu_and_back_is_the_same():
    lane = DeviceTransfer(torch.device("cuda"))
    batch = lane.empty((5, 7), torch.int16).random_(-9, 9)
    wait = lane.to_host(lane.to_device(batch) * 2)
    assert (wait() == batch * 2).all()
