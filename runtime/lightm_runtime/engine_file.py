"""The compiled engine's file, next to this one. setup.py reads this, without the rest of the package."""

# By sys.platform; elsewhere it has the first name.
FILE_NAMES = {"linux": "_engine.so", "darwin": "_engine.dylib", "win32": "_engine.dll"}
