"""The whole failure vocabulary of the bundle package.

Two families: a `BundleError` is the fault of what lies on disk or of this machine and stops a model
from being served; an `InputError` is the fault of one caller's input and concerns that caller alone.
"""


class BundleError(Exception):
    """A bundle cannot be served. The message names the file and the reason in one line."""


class ManifestError(BundleError):
    """`manifest.json` is missing, malformed, of an unknown schema version, or contradicts itself."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, changed, or lies outside the bundle's directory."""


class GraphError(BundleError):
    """A graph cannot be loaded, or its inputs and outputs disagree with the manifest."""


class GoldenError(BundleError):
    """A graph does not reproduce its golden outputs on this machine."""


class EvidenceError(BundleError):
    """The evidence behind the confidences cannot be read, or is not that of the graph."""


class ProviderError(BundleError):
    """A required execution provider is not available on this machine."""


class ServingError(BundleError):
    """`serving.json` cannot be read, breaks its schema, or names a version that is not there."""


class TrustError(BundleError):
    """A bundle is not on the list of those that may be served, or the list cannot be understood."""


class InputError(Exception):
    """A caller's input cannot be used. The message says what was wrong and what is expected."""
