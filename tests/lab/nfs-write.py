# Writes standard input to a new file of an NFSv4 server: nfs-write.py nfs://HOST/EXPORT/FILE?version=4. (nfs-cp of libnfs 4.0 asks for too much at once:
# what does not fit in its own buffer, some 3 KiB, fails on its side.)
import ctypes
import os
import sys

lib = ctypes.CDLL("libnfs.so.13")
for name in ("nfs_init_context", "nfs_parse_url_full"):
    getattr(lib, name).restype = ctypes.c_void_p
lib.nfs_get_error.restype = ctypes.c_char_p


class Url(ctypes.Structure):
    _fields_ = [("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p)]


nfs = ctypes.c_void_p(lib.nfs_init_context())


def done(result):
    if result < 0:
        sys.exit(lib.nfs_get_error(nfs).decode())


url = ctypes.cast(lib.nfs_parse_url_full(nfs, sys.argv[1].encode()), ctypes.POINTER(Url)).contents
file = ctypes.c_void_p()
done(lib.nfs_mount(nfs, url.server, url.path))
done(lib.nfs_creat(nfs, url.file, 0o660, ctypes.byref(file)))
done(lib.nfs_close(nfs, file))
done(lib.nfs_open(nfs, url.file, os.O_WRONLY, ctypes.byref(file)))
while piece := sys.stdin.buffer.read(2048):
    done(lib.nfs_write(nfs, file, ctypes.c_uint64(len(piece)), piece))
done(lib.nfs_close(nfs, file))
