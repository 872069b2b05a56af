"""API keys for tests, and the file that tells a service of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Role -> a key that has it alone.
KEYS = {"predict": "p-7f3a1c", "feedback": "f-91d204", "admin": "a-c55e08"}


def line(key: str, roles: str, name: str = "") -> str:
    return f"{roles} {hashlib.sha256(key.encode()).hexdigest()} {name}\n"


def write_keys(path: Path, *roles: str) -> Path:
    """Write a file with the keys of some roles, named after them; of all by default."""
    lines = [line(KEYS[role], role, f"{role}-holder") for role in roles or KEYS]
    fresh = path.with_suffix(".new")
    fresh.write_text("# keys of the tests\n\n" + "".join(lines))
    fresh.rename(path)
    return path


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[role]}"}
