"""Tell errors of exhausted memory from other errors, for every backend."""

# What libraries say, of a GPU's memory or the machine's, where the kind of the error does not tell.
_OF_MEMORY = (
    "out of memory",  # PyTorch, XLA
    "out_of_memory",  # CUDA
    "resource_exhausted",  # XLA, JAX
    "oom when allocating",  # TensorFlow
    "dst tensor is not initialized",  # TensorFlow, where a copy to a GPU finds no room
    "status_alloc_failed",  # cuDNN, cuBLAS
    "allocate memory",  # PyTorch on a CPU, the system
    "failed to allocate",  # CUDA's allocators
    "bad_alloc",  # C++, which ends the process with it
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what caused it, says that memory ran out.

    Parameters
    ----------
    error : BaseException
        An error of any backend or of the system.

    Returns
    -------
    bool
        True for exhausted memory of a GPU or of the machine.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"} or tells_of_memory(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def tells_of_memory(text: str) -> bool:
    """Return whether a message says that memory ran out.

    Parameters
    ----------
    text : str
        The message of an error, or what a process wrote on stderr.

    Returns
    -------
    bool
        True where it holds a phrase that a library uses for exhausted memory.
    """
    return any(phrase in text.lower() for phrase in _OF_MEMORY)
