"""What can go wrong while a machine opens or runs a model file.

DeviceError
├── RuntimeMissing      no installed runtime reads this kind of file
├── ModelUnreadable     the file is missing, empty, truncated, corrupt or no model at all
├── ModelCrashed        the runtime died (a signal) while it held the file
└── ModelTimeout        no answer within the time allowed
"""


class DeviceError(Exception):
    """A device or a model on it failed; the message is one line that says what is wrong and what to do."""


class RuntimeMissing(DeviceError):
    """No installed runtime reads this kind of file."""


class ModelUnreadable(DeviceError):
    """The file is missing, empty, truncated, corrupt or no model at all."""


class ModelCrashed(DeviceError):
    """The native runtime died while it held the file."""


class ModelTimeout(DeviceError):
    """The child process gave no answer within the time allowed."""
