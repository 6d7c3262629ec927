"""What can go wrong in the roof, one class a kind of failure.

    EdgenetError            it failed; the message is one line: what is wrong and what to do      exit 1
    ├── UsageError          the command line asks for something that makes no sense               exit 2
    ├── GateMissed          everything ran, and a promised figure was not reached                 exit 3
    └── SourceError         a camera, clip or address that can never give a picture               exit 1

Each room has a base error of its own (converters.errors.ConverterError, devices.errors.DeviceError); the command line
turns all of them into one line on stderr.
"""


class EdgenetError(Exception):
    """Something failed; the message is one line that says what is wrong and what to do."""

    exit_code = 1


class UsageError(EdgenetError):
    """The request itself is wrong: an unknown name, a missing option, options that exclude each other."""

    exit_code = 2


class GateMissed(EdgenetError):
    """Everything ran, but a gate (agreement, accuracy, latency) was missed."""

    exit_code = 3


class SourceError(EdgenetError):
    """A camera, a clip or an address that can never give a picture."""
