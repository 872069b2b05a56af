"""Make the example inputs anew: `python -m examples.make_inputs`. Needs Debian's espeak-ng for the sound.

seven.png is drawn as the model expects digits (light on dark, 28 x 28). three-on-paper.jpg is what a phone
would take: dark ink on light paper, in colour, larger, not square. seven.wav is a synthetic voice at 22 kHz.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from training.synthetic import draw_digit

FOLDER = Path(__file__).parent


def main() -> None:
    """Write the three files beside this one."""
    Image.fromarray(draw_digit(7, seed=7)).save(FOLDER / "seven.png")
    ink = Image.fromarray(draw_digit(3, seed=3, size=280))
    page = Image.new("RGB", (290, 280), (253, 252, 248))
    page.paste((15, 18, 60), (5, 0), ink)
    noise = np.random.default_rng(0).normal(0, 3, (280, 290, 3))
    photo = (np.asarray(page) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(photo).save(FOLDER / "three-on-paper.jpg", quality=85)
    sound = str(FOLDER / "seven.wav")
    subprocess.run(["espeak-ng", "-v", "en-us+m7", "-s", "150", "-w", sound, "seven"], check=True)  # noqa: S603, S607


if __name__ == "__main__":
    main()
