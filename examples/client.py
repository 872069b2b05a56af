"""Call the service from Python: `python examples/client.py [http://127.0.0.1:8000]`. Needs httpx."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import httpx

FOLDER = Path(__file__).parent


def main(url: str = "http://127.0.0.1:8000") -> None:
    """Send the example files in the three ways that a body may take, and print the answers."""
    png = (FOLDER / "seven.png").read_bytes()
    with httpx.Client(base_url=f"{url}/v1/models", timeout=10) as client:

        def call(path: str, **request: object) -> dict:
            answer = client.post(path, **request)
            if answer.is_error:
                sys.exit(f"{answer.status_code}: {answer.json()['error']}")
            return answer.json()

        media = call("/mnist-cnn:predict", content=png, headers={"content-type": "image/png"})
        print("a PNG as it is:", media["predictions"][0]["label"])

        instances = [{"b64": base64.b64encode(png).decode()}, [[0] * 28] * 28]
        mixed = call("/mnist-cnn:predict", json={"instances": instances})
        print("two instances as JSON:", [row["label"] for row in mixed["predictions"]])

        sound = (FOLDER / "seven.wav").read_bytes()
        sure = call("/spoken-digits-lstm:confidence", content=sound, headers={"content-type": "audio/wav"})
        result, calibration = sure["results"][0], sure["calibration"]
        print(f"a sound: {result['label']}, confidence {result['confidence']} ({calibration['status']})")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except httpx.ConnectError as error:
        sys.exit(f"no service answers there: {error}")
