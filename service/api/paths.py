"""The `{name:model}` of a route: a model's name or version in a path."""

from __future__ import annotations

import re

from starlette.convertors import Convertor, register_url_convertor

# What a path says between the model's name and the rest.
_WITHIN = re.compile(r"(/versions/\{version\}|/labels/\{alias\})(?=[/:]|$)")


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


def without_version(path: str) -> str:
    """Return the path that stands for a route's ways: with a version, with an alias, and with neither."""
    return _WITHIN.sub("", path)
