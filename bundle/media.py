"""The kinds of media that a model takes, and what each is decoded to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """Base of every part of a document in a bundle: immutable, and no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy it, maybe with other values; what was derived from the old ones is not taken along."""
        copied = super().model_copy(update=update, deep=deep)
        for derived in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[derived]
        return copied


class ImageDecoding(Frozen):
    """Decode PNG or JPEG to (height, width) or (height, width, 3) uint8, fitted and padded.

    Attributes:
        background: the colour (0..255) under transparent pixels and in the padding.
    """

    kind: Literal["image"] = "image"
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]
    background: int = Field(ge=0, le=255)


class AudioDecoding(Frozen):
    """Decode WAV to (time,) float32 in -1..1 at `sample_rate_hz`, channels averaged."""

    kind: Literal["audio"] = "audio"
    sample_rate_hz: int = Field(gt=0)


class TextDecoding(Frozen):
    """Decode UTF-8 text to (time,) int64: each character's index in `alphabet`.

    Attributes:
        alphabet: the characters that the model knows, each once; its order gives the indices.
        unknown_index: what any other character becomes.
        max_characters: longer texts are refused.
    """

    kind: Literal["text"] = "text"
    alphabet: str = Field(min_length=1)
    unknown_index: int = Field(ge=0)
    max_characters: int = Field(gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError("alphabet holds a character twice")
        return self


class TensorDecoding(Frozen):
    """No media: the model takes tensors only."""

    kind: Literal["tensor"] = "tensor"


Decoding = Annotated[
    ImageDecoding | AudioDecoding | TextDecoding | TensorDecoding, Field(discriminator="kind")
]
