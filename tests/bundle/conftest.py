"""How hypothesis runs here: the same examples every time, and no time limits on a shared machine."""

from hypothesis import settings

settings.register_profile("octet", deadline=None, derandomize=True, database=None)
settings.load_profile("octet")
