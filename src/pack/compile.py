# Compiles modules for condaimg: requests on standard input, byte code on standard output.
# A request: path length, path (UTF-8), source length, source. An answer: length and .pyc, or 2**32-1 when the
# source is not valid for this Python (test data, templates), as compileall leaves such files alone.
# Numbers have four bytes, big-endian. The .pyc are unchecked and hash-based (PEP 552): they hold no time, and
# Python does not look at the source before it uses them.
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import marshal
from importlib.util import MAGIC_NUMBER, source_hash

UNCHECKED_HASH = (1).to_bytes(4, "little")
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer


def number():
    data = stdin.read(4)
    if len(data) < 4:
        raise SystemExit(0)
    return int.from_bytes(data, "big")


while True:
    path = stdin.read(number()).decode()
    source = stdin.read(number())
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        stdout.write(b"\xff\xff\xff\xff")
    else:
        pyc = MAGIC_NUMBER + UNCHECKED_HASH + source_hash(source) + marshal.dumps(code)
        stdout.write(len(pyc).to_bytes(4, "big") + pyc)
    stdout.flush()
