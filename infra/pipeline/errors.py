"""What a user of the program can get wrong; `infra/__main__.py` shows it as one line."""


class ConfigurationError(Exception):
    """A setting, or what it names, is not usable. The message says which, what it is, and what is accepted."""
