"""What a gate worker may still ask of the kernel once it decodes: nothing that opens, connects, starts or looks around.

The limits of resources already leave no room for a new descriptor or process. This second wall is a seccomp filter
(Linux, x86-64 and AArch64): the system calls below fail with EPERM whatever descriptors are free. It lists what is
denied, not what is allowed: decoders, the C library and Python change what they use, and a worker that dies of a
harmless call would be a refusal of good pictures.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_EPERM, _ENOSYS = 1, 38
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: the call's number, the architecture, the low half of the first argument.
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# The HEIC decoder starts a thread whatever it is told: threads may be started, processes not. What clone3 is asked for
# lies in memory that a filter cannot read, so it is said not to exist, and the C library goes back to clone.
_CLONE, _CLONE3 = (56, 220), 435
_CLONE_THREAD = 0x00010000
_X32_CALLS = 0x40000000  # a second door to the same calls on x86-64

# name -> (x86-64, AArch64); None where the architecture has no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # files
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "truncate": (76, 45),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "memfd_create": (319, 279),
    # network
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # processes
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "setns": (308, 268),
    "unshare": (272, 97),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
}
# AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def confine() -> bool:
    """Put the filter in place for this process, for good. False where the kernel or the architecture has none."""
    column, architecture = _ARCHITECTURES.get(platform.machine(), (-1, 0))
    if column < 0 or os.uname().sysname != "Linux":
        return False
    numbers = sorted(number for calls in _DENIED.values() if (number := calls[column]) is not None)
    program = _filter(numbers, _CLONE[column], architecture)
    libc = ctypes.CDLL(None, use_errno=True)
    packed = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    header = _SockFprog(len(program), ctypes.cast(buffer, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) == 0)


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter(numbers: list[int], clone: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF: another architecture's calls end the process, the denied ones fail, all others pass."""
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERROR | _ENOSYS),
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_JUMP_AT_LEAST, len(numbers) + 1, 0, _X32_CALLS),
    ]
    program += [(_JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    return [*program, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | _EPERM)]
