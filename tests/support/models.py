"""Paths of the real models; to import, or as a program:

models.py PROGRAM ARG...: runs the program with {smollm2} and {gemma3} in its arguments replaced by paths of the models.

The models are in MNEMO_MODEL_DIR, or where scripts/setup.sh puts them, beside the virtual environment that runs this.
"""

from __future__ import annotations

import os
import pathlib
import sys

FILES = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}


def find(name: str) -> pathlib.Path:
    """The file of a model of FILES. A missing file is an error, so that no test is left out."""
    folders = [os.environ.get("MNEMO_MODEL_DIR", ""), str(pathlib.Path(sys.prefix).parent / "models")]
    for folder in filter(None, folders):
        if (pathlib.Path(folder) / FILES[name]).is_file():
            return pathlib.Path(folder) / FILES[name]
    raise FileNotFoundError(f"{FILES[name]} is not in {' or '.join(filter(None, folders))}: set MNEMO_MODEL_DIR or run scripts/setup.sh")


def main(arguments: list[str]) -> None:
    places = {f"{{{name}}}": name for name in FILES}
    command = [str(find(places[argument])) if argument in places else argument for argument in arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
