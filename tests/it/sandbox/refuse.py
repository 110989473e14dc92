"""Runs a command as in a container whose seccomp profile refuses namespaces, and Landlock too with `all`."""
import ctypes, os, platform, struct, sys

what, command = sys.argv[1], sys.argv[2:]
unshare = {"x86_64": 272, "aarch64": 97}[platform.machine()]
calls = {"namespaces": [unshare], "all": [unshare, 444]}[what]
EPERM, ENOSYS = 0x00050000 | 1, 0x00050000 | 38
program = [(0x20, 0, 0, 0)]
for call in calls:
    program += [(0x15, 0, 1, call), (0x06, 0, 0, EPERM if call == unshare else ENOSYS)]
program.append((0x06, 0, 0, 0x7FFF0000))
code = b"".join(struct.pack("HBBI", *line) for line in program)
buffer = ctypes.create_string_buffer(code)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(command[0], command)
