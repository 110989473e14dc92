# Asks a build backend (first argument, its paths behind it) what it needs to build a wheel; prints a JSON list.
import importlib, json, os, sys

name, paths = sys.argv[1], sys.argv[2:]
sys.argv[1:] = []
sys.path[:0] = [os.path.abspath(path) for path in paths]
output, sys.stdout = os.dup(1), sys.stderr
os.dup2(2, 1)
module, _, attributes = name.partition(":")
backend = importlib.import_module(module)
for attribute in filter(None, attributes.split(".")):
    backend = getattr(backend, attribute)
hook = getattr(backend, "get_requires_for_build_wheel", None)
with os.fdopen(output, "w") as file:
    json.dump(list(hook({}) if hook else []), file)
