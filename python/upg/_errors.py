"""What the library throws, as exceptions: the messages are the library's own."""


class Error(Exception):
    """Base of all errors of UPG. The message says what is wrong, where (file, tensor or field), and what to do."""


class InvalidArgumentError(Error, ValueError):
    """An option or an argument is wrong."""


class InvalidFileError(Error, ValueError):
    """A file's content breaks the rules of its format."""


class UnsupportedError(Error, NotImplementedError):
    """Well formed, but this build does not do it."""


class NotFoundError(Error, FileNotFoundError):
    """A file, tensor or name does not exist."""


class IoError(Error, OSError):
    """The operating system refused to read or write."""


class OutOfMemoryError(Error, MemoryError):
    """The memory asked for is not there."""


class CancelledError(Error):
    """A callback asked to stop."""


class BusyError(Error):
    """There is no room now; later there may be."""


# In the order of upg::ErrorCode.
BY_CODE: tuple[type[Error], ...] = (
    InvalidArgumentError,
    InvalidFileError,
    UnsupportedError,
    NotFoundError,
    IoError,
    OutOfMemoryError,
    CancelledError,
    BusyError,
)
