"""Function references inside stored APScheduler jobs; pure.

APScheduler stores a job as a pickle in which the job's function is a text, `module:name`. A
job whose reference cannot be imported is removed by APScheduler, with the run that it missed. So a
reference is rewritten before APScheduler reads it, and without unpickling: opcodes are only read.
"""

from __future__ import annotations

import pickletools
import struct

_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})


def replace_reference(job_state: bytes, old: str, new: str) -> bytes:
    """The pickle with every text that equals `old` as `new`; the same bytes if it has none.

    Raises:
        ValueError: the bytes are no pickle.
    """
    opcodes = list(pickletools.genops(job_state))
    if not any(opcode.name in _TEXTS and arg == old for opcode, arg, _ in opcodes):
        return job_state
    ends = [at or 0 for _, _, at in opcodes[1:]] + [len(job_state)]
    parts: list[bytes] = []
    for (opcode, arg, at), end in zip(opcodes, ends, strict=True):
        if opcode.name == "FRAME":
            # A frame has its length before it; pickles are read without frames as well.
            continue
        if opcode.name in _TEXTS and arg == old:
            text = new.encode()
            parts.append(b"X" + struct.pack("<I", len(text)) + text)
        else:
            parts.append(job_state[at or 0 : end])
    return b"".join(parts)
