# Unpacks a source archive (first argument) into a folder (second argument).
import sys, tarfile, zipfile

archive, folder = sys.argv[1:]
if zipfile.is_zipfile(archive):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
else:
    with tarfile.open(archive) as file:
        if hasattr(tarfile, "data_filter"):
            file.extractall(folder, filter="data")
        else:
            file.extractall(folder)
