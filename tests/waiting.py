"""Count the calls that make the host wait for a device, on any device."""

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: reading a number, or copying to the CPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().startswith(("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"))
        return func(*args, **kwargs or {})


class Reads(TorchFunctionMode):
    """Counts the same at the level of Python: on the CPU ``tolist`` reads memory without any operation."""

    NAMES = frozenset(["item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__"])

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in self.NAMES
        return func(*args, **kwargs or {})
