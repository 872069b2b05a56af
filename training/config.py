"""The configuration of a job: frozen, documented, and hashed into the provenance of what it makes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import CliSuppress

from bundle.manifest import ReviewedItems


class Config(BaseModel):
    """Base of every part of a configuration: immutable, and no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FitConfig(Config):
    """How a network is trained."""

    max_epochs: int = Field(ge=1)
    """Epochs, unless validation stops earlier."""
    batch_size: int = Field(ge=1)
    """Items a step."""
    learning_rate: float = Field(gt=0)
    """Peak rate of AdamW under a one-cycle schedule."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    patience: int = 10
    """Epochs without a better validation loss after which training stops."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the training steps; weights and everything exported are fp32."""
    max_steps: int = -1
    """Stop after so many steps, whatever the epoch; -1 for no limit."""
    overfit_steps: int = 60
    """Steps in which the network must learn a few batches by heart before training starts; 0 skips it."""


class GateConfig(Config):
    """What an int8 graph must reach on the validation split to be published."""

    max_latency_ratio: float = 1.05
    """Largest int8 / fp32 latency at batch 8."""
    max_accuracy_loss: float = 0.005
    """Largest loss of accuracy against fp32."""
    min_agreement: float = Field(ge=0, le=1)
    """Smallest share of items with the same label as fp32."""
    max_parity_error: float = 1e-4
    """Largest |logit difference| between PyTorch and the exported fp32 graph."""


class RecipeConfig(Config):
    """What every recipe is configured by; each recipe adds its own."""

    name: str
    """Name of the model, and of its folder in the model repository."""
    seed: int = 0
    """Seed of the weights, the order of the items and the augmentation. The splits do not depend on it."""
    fit: FitConfig
    gates: GateConfig
    # Left out where there are none, so that what was published before there could be any keeps its digest.
    reviewed: CliSuppress[ReviewedItems | None] = Field(None, exclude_if=lambda value: value is None)
    """Items of a review queue that are trained on too; --review names their file."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Let `--fit.max-epochs 5` change one value of a part and keep the recipe's others."""
        if not isinstance(values, dict):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {
            name: {**defaults[name].model_dump(), **value}
            if isinstance(value, dict) and isinstance(defaults.get(name), Config)
            else value
            for name, value in values.items()
        }

    def sha256(self) -> str:
        """Digest of the whole configuration; equal configurations have equal digests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class WorkPlaces(BaseModel):
    """Where a job reads data and keeps its work. None of it changes what is made."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    data_dir: Path = Field(default_factory=lambda: Path(os.environ.get("OCTET_DATA_DIR") or "data"))
    """Data directory, <data dir>/<data set>/<file>; by default OCTET_DATA_DIR, else data."""
    runs_dir: Path = Path("runs")
    """Logs and checkpoints; a job with the same configuration goes on from what lies here."""


class Places(WorkPlaces):
    """Where a job that publishes reads and writes."""

    models_dir: Path = Path("models")
    """Model repository that the bundle is published to."""

    def run_dir(self, config: RecipeConfig) -> Path:
        """Return the folder of all runs with this configuration."""
        return self.runs_dir / config.name / config.sha256()[:12]
