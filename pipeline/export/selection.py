"""Selection of export formats, by their tasks and packages.

A format is a file of pipeline/export/formats. Nothing here imports PyTorch, so that the planner
can refuse a wrong selection at once.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from pipeline import registry
from pipeline.errors import UserError

FORMATS = "export/formats"
INCLUDES = {"onnx": ("int8",)}  # formats that are written with another one
NOT_FOR = {  # tasks, and the formats that cannot hold their networks
    "classification": (),
    "segmentation": ("sparse",),
    "translation": ("int8", "onnx", "openvino", "sparse"),
}
PACKAGES = {
    "torch": ("huggingface_hub",),
    "onnx": ("huggingface_hub", "onnx", "onnxruntime", "onnxscript"),
    "int8": ("huggingface_hub", "onnx", "onnxruntime", "onnxscript"),
    "openvino": ("huggingface_hub", "onnx", "onnxscript", "openvino"),
    "sparse": ("huggingface_hub",),
}


def select(names: Sequence[str], task: str) -> list[str]:
    """Return the formats that ``names`` stand for, each once; those that others include follow.

    Raises:
        UserError: a format does not exist, or not for this ``task``.
    """
    chosen: list[str] = []
    for name in names:
        registry.module_name(FORMATS, name, "export")
        if task not in NOT_FOR:
            known = ", ".join(NOT_FOR)
            raise UserError(f"export is for {known}, and this task is {task}: set it to []")
        if name in NOT_FOR[task]:
            rest = ", ".join(all_formats(task))
            raise UserError(
                f"export has {name}, which does not exist for {task}: set it to any of [{rest}]"
            )
        chosen += [name, *INCLUDES.get(name, ())]
    return list(dict.fromkeys(chosen))


def all_formats(task: str) -> list[str]:
    """Return all formats for networks of ``task``."""
    return [name for name in registry.names(FORMATS) if name not in NOT_FOR.get(task, ())]


def check_installed(formats: Sequence[str]) -> None:
    """Refuse ``formats`` that need packages which are not installed.

    Raises:
        UserError: naming the package and the extra that has it.
    """
    for name in formats:
        for package in PACKAGES.get(name, ()):
            if find_spec(package) is None:
                raise UserError(
                    f"export has {name}, which needs {package}: install it with "
                    "pip install -e '.[export]', or leave the format out"
                )


def module_names(formats: Sequence[str]) -> list[str]:
    """Return the dotted names of the modules of ``formats``."""
    return [registry.module_name(FORMATS, name, "export") for name in formats]
