"""Writes dequantize_vectors.inc: blocks of every supported type and their values by the gguf package.

Usage: python make_dequantize_vectors.py   (needs gguf and numpy; see scripts/python-requirements.txt)
"""

import pathlib

import gguf
import numpy as np

BLOCKS = 3
# Type name -> offsets of the half-precision scales in a block.
SCALES = {
    "F32": [], "F16": [], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def blocks_of(name: str, rng: np.random.Generator) -> np.ndarray:
    """Random blocks with finite scales; the last block's scales are subnormal halves."""
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = BLOCKS if elements > 1 else 96
    if name == "F32":
        return rng.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, size)
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name in ("F16", "BF16"):
        data[:, 1] &= 0xBB if name == "F16" else 0xBF  # finite
    for offset in SCALES[name]:
        halves = rng.standard_normal(count).astype(np.float16)
        halves[-1] = np.uint16(rng.integers(1, 1024)).view(np.float16)
        data[:, offset : offset + 2] = halves.view(np.uint8).reshape(count, 2)
    return data


def main() -> None:
    rng = np.random.default_rng(20240607)
    lines = ["// Made by make_dequantize_vectors.py: type, stored bytes, float32 bits of the values; all little-endian hex."]
    for name in SCALES:
        data = blocks_of(name, rng)
        values = gguf.quants.dequantize(data.reshape(-1), gguf.GGMLQuantizationType[name]).astype(np.float32)
        for text in (f"TensorType::k{name},", data.tobytes().hex(), values.tobytes().hex()):
            if text.startswith("TensorType"):
                lines.append("{" + text)
                continue
            lines += [f' "{text[i:i + 100]}"' for i in range(0, len(text), 100)]
            lines.append(" ,")
        lines[-1] = "},"
    path = pathlib.Path(__file__).parent / "dequantize_vectors.inc"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
