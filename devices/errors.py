"""What can go wrong while a machine opens or runs a model file.

DeviceError
├── RuntimeMissing      no installed runtime reads this kind of file
├── ModelUnreadable     the file is missing, empty, truncated, corrupt or no model at all
├── ModelCrashed        the runtime died (a signal) while it held the file
├── ModelTimeout        no answer within the time allowed
├── BundleError         the runtime for a device could not be assembled, or a pinned hash does not match
├── UnknownDevice       no device is called so
├── ProfileError        a profile, or the list of devices, says what cannot be
└── ShellError          a device reached over ssh or adb
    ├── DeviceUnreachable   no answer: off, wrong address, no such phone
    ├── DeviceRefused       it answers and does not let us in: wrong key, changed host key, unauthorized phone
    ├── DeviceLost          the connection broke in the middle; what was done before is kept
    ├── CommandTimeout      a command gave no answer in time and was killed on the device
    ├── DeviceFull          no room for what is pushed
    ├── DeviceBusy          another edgenet holds it
    └── DeviceUnfit         it cannot run models: 32-bit userland, no folder to execute from, a missing tool
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


class BundleError(DeviceError):
    """The runtime for a device could not be assembled, or a pinned hash does not match."""


class UnknownDevice(DeviceError):
    """No device is called so."""


class ProfileError(DeviceError):
    """A profile, or the list of devices, says what cannot be."""


class ShellError(DeviceError):
    """A device reached over ssh or adb failed."""


class DeviceUnreachable(ShellError):
    """No answer: off, wrong address, no such phone."""


class DeviceRefused(ShellError):
    """It answers and does not let us in: wrong key, changed host key, unauthorized phone."""


class DeviceLost(ShellError):
    """The connection broke in the middle; what was done before is kept."""


class CommandTimeout(ShellError):
    """A command gave no answer in time and was killed on the device."""


class DeviceFull(ShellError):
    """No room on the device for what is pushed, or even for a lock."""


class DeviceBusy(ShellError):
    """Another edgenet holds the device."""


class DeviceUnfit(ShellError):
    """It cannot run models: 32-bit userland, no folder to execute from, a missing tool."""
