"""What other programs make of PET series: run by `suv_oracles.py` in an environment that has mirp and pysuv.

python suv_oracle_peers.py mirp|pysuv FOLDER...      prints {"FOLDER": [min, median, max, mean] or "error"}
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


def by_mirp(folder: Path) -> np.ndarray:
    from mirp import extract_images

    found = extract_images(image=str(folder), image_export_format="native")[0]
    image = found[0][0] if isinstance(found[0], list) else found[0]
    return np.asarray(image.get_voxel_grid(), dtype=np.float64)


def by_pysuv(folder: Path) -> np.ndarray:
    import pysuv

    files = sorted(file for file in folder.rglob("*.dcm"))
    return np.stack([np.asarray(pysuv.compute_suv(file), dtype=np.float64) for file in files])


def main(name: str, folders: list[str]) -> None:
    read = {"mirp": by_mirp, "pysuv": by_pysuv}[name]
    told: dict[str, list[float] | str] = {}
    for folder in folders:
        try:
            values = read(Path(folder))
            told[folder] = [float(f(values)) for f in (np.min, np.median, np.max, np.mean)]
        except Exception as error:  # each program has its own ways to refuse
            told[folder] = f"{type(error).__name__}: {str(error).split(' [')[0].splitlines()[0] if str(error) else ''}"[
                :120
            ]
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
