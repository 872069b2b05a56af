"""The review queue: inputs that the models are not sure of are kept, labelled by people, and trained on.

It is off unless a store is named, because it keeps what callers sent. Imports go one way only:
queue > picking | export > store > database | items.
"""
