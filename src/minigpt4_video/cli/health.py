"""The verb that tells whether this machine is ready."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from typer import Exit

from minigpt4_video import __version__
from minigpt4_video.cli import options
from minigpt4_video.cli.output import quiet, say, say_json
from minigpt4_video.errors import UserError

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pillow",
    "av",
    "pysubs2",
    "peft",
    "accelerate",
)
GIB = 2**30


def doctor(model: options.Model = "tiny", device: options.Device = "auto", json: options.Json = False) -> None:
    """Check versions, device, memory, and that a small video can be written, read and asked about.

    \b
    minigpt4-video doctor
    """
    facts = {"minigpt4-video": __version__, "python": platform.python_version(), "system": platform.platform()}
    facts |= {name: _version(name) for name in PACKAGES}
    faults = []
    if fault := _torchvision_fault():
        faults.append(fault)
    facts["memory"] = f"{_memory() / GIB:.1f} GiB, {os.cpu_count()} processors"
    # A broken torchvision breaks the imports below; its line above all else is what helps.
    if not faults:
        quiet()
        try:
            facts["device"] = _device(device)
            facts["self-test"] = _self_test(model, device)
        except UserError as error:
            faults.append(str(error))
    if json:
        say_json({**facts, "faults": faults})
    else:
        for name, fact in facts.items():
            say(f"{name:16} {fact}")
        for fault in faults:
            say(f"FAULT            {fault}")
        say("ready" if not faults else f"{len(faults)} to mend")
    if faults:
        raise Exit(2)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _torchvision_fault() -> str:
    """A torchvision that does not fit torch makes transformers fail at import with a message about something else."""
    if importlib.util.find_spec("torchvision") is None:
        return ""
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    return (
        f"torchvision {_version('torchvision')} does not work with torch {_version('torch')}, and breaks transformers; "
        "nothing here needs it: pip uninstall torchvision"
    )


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _device(wanted: str) -> str:
    import torch

    from minigpt4_video.inference.loading import find_device

    device = find_device(wanted)
    if device.type != "cuda":
        return f"{device} ({torch.get_num_threads()} threads)"
    free, whole = torch.cuda.mem_get_info(device)
    return f"{device} ({torch.cuda.get_device_name(device)}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free)"


def _self_test(model: str, device: str) -> str:
    """Write a second of video, read it back, and ask the model about it."""
    import av
    import numpy as np

    from minigpt4_video.inference import VideoChat

    began = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        with av.open(str(clip), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
            for level in range(0, 256, 32):
                grey = np.full((128, 128, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        answer = VideoChat.from_pretrained(model, device=device).open(clip).ask("What happens?", max_new_tokens=8)
    return f"{model} answered {answer.plan.frames} frames in {perf_counter() - began:.1f} s"
