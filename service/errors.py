"""What a request can be refused for, beside an input that cannot be used (`bundle.errors.InputError`).

These know nothing of HTTP; `service.api.problems` maps each to a status.
"""


class ServiceError(Exception):
    """Base of the refusals. The message is for the caller."""


class UnknownModelError(ServiceError):
    """No model of that name, or no version of that number, is served."""


class NoReportError(ServiceError):
    """The bundle of this model holds no evaluation report."""


class ModelNotReadyError(ServiceError):
    """The model is known, but nothing of it is served at the moment."""


class ModelControlError(ServiceError):
    """What is served cannot be changed so: the settings or the protocol do not allow it."""


class ModelLoadError(ServiceError):
    """A model cannot be served as it was asked for; what was served before still is."""


class ReviewOffError(ServiceError):
    """No inputs are kept for review here."""


class UnknownItemError(ServiceError):
    """The review queue holds no such input."""


class ReviewStoreError(ServiceError):
    """The store of the review queue cannot be reached, read or written at the moment."""


class UnknownKeyError(ServiceError):
    """An API key is needed, and the caller sent none or one that is not known."""


class RoleError(ServiceError):
    """The caller's API key does not allow this."""


class UnsupportedMediaError(ServiceError):
    """The body is of a type that this model does not take."""


class BodyTooLargeError(ServiceError):
    """The body is over the limit."""


class BodyTimeoutError(ServiceError):
    """The body did not arrive in time."""


class QueueFullError(ServiceError):
    """The model's queue is full; the caller should try again later."""


class DeadlineError(ServiceError):
    """The answer was not ready in time."""


class CallerGoneError(ServiceError):
    """The caller closed the connection before the answer was ready."""


class ForgedFeedbackError(ServiceError):
    """The prediction id was not signed with a key that is known."""


class RepeatedFeedbackError(ServiceError):
    """The right label of this answer was told before."""


class LateFeedbackError(ServiceError):
    """The prediction id has expired, or what answered is not served any more."""
