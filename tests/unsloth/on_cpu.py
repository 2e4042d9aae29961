"""Lets the real unsloth run where there is no GPU: import this before anything else, then unsloth.

unsloth has a switch of its own for tests, and Triton interprets kernels in Python. Missing are answers about a device
that is not there, and tensors that are asked for on it: they are made on the CPU. In bfloat16, Triton's interpreter
computes wrongly (NaN), so only float32 shows anything.
"""

import importlib.abc
import os
import sys
from types import SimpleNamespace

os.environ |= {
    "UNSLOTH_ALLOW_CPU": "1",
    "UNSLOTH_COMPILE_DISABLE": "1",
    "UNSLOTH_DISABLE_DOUBLE_BUFFER": "1",
    "UNSLOTH_DISABLE_PINNED_MEMORY": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_TRITON_FAST_LAUNCH": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "TRITON_INTERPRET": "1",
    "HF_HUB_OFFLINE": "1",
}

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu", 0)  # with an index, since unsloth keeps tables by a device's index
DEVICE = SimpleNamespace(name="no GPU", total_memory=2**33, major=8, minor=0, multi_processor_count=1)

torch.cuda.get_device_properties = lambda device=None: DEVICE
torch.cuda.get_device_capability = lambda device=None: (8, 0)
torch.cuda.device_count = lambda: 1
torch.cuda.current_device = lambda: 0
torch.cuda.max_memory_allocated = lambda device=None: 0
torch.cuda.empty_cache = lambda: None
torch._C._cuda_getCurrentRawStream = lambda index: 0


class AfterItsDevice(importlib.abc.MetaPathFinder):
    """Turns unsloth's switch off once it has chosen its device: with it, TRL's trainers stay as they are."""

    def find_spec(self, name, path=None, target=None):
        if name == "unsloth.models":
            os.environ["UNSLOTH_ALLOW_CPU"] = "0"


def _here(value):
    """A CUDA device, or its name, as the CPU; anything else as it is."""
    named = isinstance(value, str) and value.startswith("cuda")
    return CPU if named or (isinstance(value, torch.device) and value.type == "cuda") else value


class OnCpu(TorchFunctionMode):
    """Makes on the CPU what is asked for on a GPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = CPU if type(kwargs["device"]) is int else _here(kwargs["device"])
        if function is torch.device and args and (type(args[0]) is int or _here(args[0]) is CPU):
            return CPU
        if function is torch.Tensor.cuda:
            return args[0]
        if function is torch.Tensor.to:
            args = tuple(map(_here, args))
        return function(*args, **kwargs)


def claim_bfloat16() -> None:
    """Let unsloth, once imported, and transformers take the device for one of compute capability 8.0.

    Without a device they say that there is no bfloat16, and then choose other settings than on a real one.
    """
    import unsloth_zoo.device_type
    from transformers import training_args
    from unsloth.models import _utils, llama, loader

    for module in (_utils, llama, loader):
        module.SUPPORTS_BFLOAT16 = True
    unsloth_zoo.device_type.device_is_bf16_supported = lambda: True
    training_args.is_torch_bf16_gpu_available = lambda: True


sys.meta_path.insert(0, AfterItsDevice())
OnCpu().__enter__()
