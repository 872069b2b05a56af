"""The `{name:model}` of a route: a model's name or version in a path."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class ModelConvertor(Convertor[str]):
    """A model's name in a path: no slash, and no colon, which begins the verb."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """Return it as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("model", ModelConvertor())
